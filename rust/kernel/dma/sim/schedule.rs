// SPDX-License-Identifier: GPL-2.0

//! When a device carries out what it was told, and what it says about it then.
//!
//! Time is counted in ticks, which pass when the driver looks at the device, or when the test says
//! so: a run depends on the script and its seed, and on nothing else.

use crate::prelude::*;

/// What becomes of a request to a simulated device.
///
/// # Examples
///
/// ```
/// use kernel::dma::sim::Fate;
///
/// // Takes up to ten ticks, so that requests overtake each other, and is reported twice.
/// let fate = Fate::within(10).twice();
///
/// // Is reported with more bytes than there are.
/// let lie = Fate::after(3).reports(100_000);
/// # let _ = (fate, lie);
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Fate {
    delay: Delay,
    pub(super) reports: Option<usize>,
    pub(super) elsewhere: Option<usize>,
    twice: bool,
}

#[derive(Clone, Copy, Debug)]
enum Delay {
    After(u32),
    Within(u32),
    Never,
}

impl Fate {
    const fn new(delay: Delay) -> Self {
        Self {
            delay,
            reports: None,
            elsewhere: None,
            twice: false,
        }
    }

    /// It is carried out after so many ticks; after none: at once.
    pub const fn after(ticks: u32) -> Self {
        Self::new(Delay::After(ticks))
    }

    /// It is carried out after so many ticks at most, as the seed has it.
    pub const fn within(ticks: u32) -> Self {
        Self::new(Delay::Within(ticks))
    }

    /// It is never carried out; the device stays at work until it is stopped.
    pub const fn never() -> Self {
        Self::new(Delay::Never)
    }

    /// The device claims to have moved so many bytes.
    pub const fn reports(mut self, len: usize) -> Self {
        self.reports = Some(len);
        self
    }

    /// The device reports it in another descriptor of the ring.
    pub const fn reports_at(mut self, index: usize) -> Self {
        self.elsewhere = Some(index);
        self
    }

    /// The device reports it once more, one tick later.
    pub const fn twice(mut self) -> Self {
        self.twice = true;
        self
    }
}

/// What happens when a driver stops a simulated device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// It drops what it has not carried out, and says that it has stopped.
    Works,
    /// It never says that it has stopped, and goes on.
    Hangs,
    /// It is not there any more: its registers don't answer, and it accesses nothing.
    Gone,
    /// It says that it has stopped, and goes on.
    Lies,
}

/// A pseudo-random sequence (SplitMix64): the same for the same seed.
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);

        let mut bits = self.0;

        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    /// A number from 0 to `max`.
    fn up_to(&mut self, max: u32) -> u64 {
        self.next() % (u64::from(max) + 1)
    }
}

/// What a device was told and has not carried out yet.
pub(super) struct Schedule<T> {
    now: u64,
    random: Random,
    fates: KVec<Fate>,
    usual: Fate,
    events: KVec<Event<T>>,
    asked: u64,
}

#[derive(Clone, Copy)]
pub(super) struct Event<T> {
    pub(super) what: T,
    pub(super) fate: Fate,
    /// If it was carried out before and is only reported again: how many bytes were moved.
    pub(super) again: Option<usize>,
    due: u64,
    order: u64,
}

impl<T: Copy> Schedule<T> {
    pub(super) fn new(seed: u64, usual: Fate) -> Self {
        Self {
            now: 0,
            random: Random::new(seed),
            fates: KVec::new(),
            usual,
            events: KVec::new(),
            asked: 0,
        }
    }

    /// Says what becomes of the next request that has no fate yet.
    pub(super) fn then(&mut self, fate: Fate) -> Result {
        Ok(self.fates.push(fate, GFP_ATOMIC)?)
    }

    /// Makes room for so many requests.
    pub(super) fn reserve(&mut self, count: usize) -> Result {
        Ok(self.events.reserve(count, GFP_ATOMIC)?)
    }

    /// Returns how many fates no request has had.
    pub(super) fn unused(&self) -> usize {
        self.fates.len()
    }

    pub(super) fn ask(&mut self, what: T) -> Result {
        self.reserve(1)?;

        let fate = self.fates.remove(0).unwrap_or(self.usual);
        let due = match fate.delay {
            Delay::After(ticks) => self.now + u64::from(ticks),
            Delay::Within(ticks) => self.now + self.random.up_to(ticks),
            Delay::Never => u64::MAX,
        };

        self.asked += 1;
        self.push(Event {
            what,
            fate,
            again: None,
            due,
            order: self.asked,
        })
    }

    fn push(&mut self, event: Event<T>) -> Result {
        Ok(self.events.push(event, GFP_ATOMIC)?)
    }

    pub(super) fn tick(&mut self, ticks: u32) {
        self.now += u64::from(ticks);
    }

    /// Takes the first event whose time has come.
    pub(super) fn due(&mut self) -> Option<Event<T>> {
        let (at, _) = self
            .events
            .iter()
            .enumerate()
            .filter(|(_, event)| event.due <= self.now)
            .min_by_key(|(_, event)| (event.due, event.order))?;

        self.events.remove(at).ok()
    }

    /// An event was carried out; it may have to be reported again.
    pub(super) fn done(&mut self, event: Event<T>, moved: usize) {
        if event.fate.twice && event.again.is_none() {
            let _ = self.push(Event {
                again: Some(moved),
                due: self.now + 1,
                ..event
            });
        }
    }

    /// Puts an event off that can't be carried out yet.
    pub(super) fn put_off(&mut self, event: Event<T>) {
        let _ = self.push(Event {
            due: self.now + 1,
            ..event
        });
    }

    /// Returns how many requests are not carried out.
    pub(super) fn pending(&self) -> usize {
        let waiting = self.events.iter().filter(|event| event.again.is_none());

        waiting.count()
    }

    pub(super) fn clear(&mut self) {
        self.events.clear();
    }
}
