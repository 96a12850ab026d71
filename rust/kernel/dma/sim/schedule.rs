// SPDX-License-Identifier: GPL-2.0

//! When a device carries out what it was told, and what it says about it then.
//!
//! Time is counted in ticks, which pass when the driver looks at the device, or when the test says
//! so: a run depends on the script and its seed, and on nothing else.

use super::queue::Queue;
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
///
/// // One in a hundred is a lie; the seed says which one, and what kind of lie it is.
/// let hostile = Fate::within(10).lies(100);
/// # let _ = (fate, lie, hostile);
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Fate {
    delay: Delay,
    pub(super) reports: Option<usize>,
    pub(super) place: Place,
    pub(super) ends: Option<bool>,
    pub(super) unreported: bool,
    pub(super) keeps: bool,
    pub(super) bad: bool,
    again: Option<u32>,
    lies: u32,
}

#[derive(Clone, Copy, Debug)]
enum Delay {
    After(u32),
    Within(u32),
    Never,
}

/// Which descriptor a device reports in.
#[derive(Clone, Copy, Debug)]
pub(super) enum Place {
    /// The one that it carried out.
    Own,
    /// This one, in the ring or beyond it.
    At(usize),
    /// One that is in the ring; which one is up to this number.
    Any(u64),
}

impl Fate {
    const fn new(delay: Delay) -> Self {
        Self {
            delay,
            reports: None,
            place: Place::Own,
            ends: None,
            unreported: false,
            keeps: false,
            bad: false,
            again: None,
            lies: 0,
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

    /// The device reports it in another descriptor, which may be beyond the ring.
    pub const fn reports_at(mut self, index: usize) -> Self {
        self.place = Place::At(index);
        self
    }

    /// The device claims that a frame ends there, or that none does.
    pub const fn ends(mut self, ends: bool) -> Self {
        self.ends = Some(ends);
        self
    }

    /// It is carried out, but the device never says so.
    pub const fn unreported(mut self) -> Self {
        self.unreported = true;
        self
    }

    /// The device says that what it has sent or received there is damaged.
    pub const fn bad(mut self) -> Self {
        self.bad = true;
        self
    }

    /// The device says that it is done, and keeps the descriptor: its own bit stays set. So it
    /// isn't done by what was agreed, and carries the descriptor out again when it comes round.
    ///
    /// Only where descriptors have own bits; else it is reported as usual.
    pub const fn keeps(mut self) -> Self {
        self.keeps = true;
        self
    }

    /// The device reports it once more, one tick later.
    pub const fn twice(self) -> Self {
        self.twice_after(1)
    }

    /// The device reports it once more, so many ticks later: in a descriptor that may have been
    /// used again by then.
    pub const fn twice_after(mut self, ticks: u32) -> Self {
        self.again = Some(ticks);
        self
    }

    /// One in so many is a lie, as the seed has it: about the length, about the end of the frame,
    /// that it is damaged, in another descriptor of the ring, twice, with its own bit set, or not
    /// reported at all. With 0 none is.
    ///
    /// These lies are such as a driver has to bear: in what the device writes, and nothing that is
    /// a fault by itself. A device without descriptors only tells those about lengths, and twice.
    pub const fn lies(mut self, one_in: u32) -> Self {
        self.lies = one_in;
        self
    }

    /// Whether it says something that only devices with descriptors can do.
    pub(super) fn is_about_descriptors(&self) -> bool {
        !matches!(self.place, Place::Own)
            || self.ends.is_some()
            || self.unreported
            || self.keeps
            || self.bad
    }

    /// Makes it a lie if it is to be one.
    fn draw(self, random: &mut Random) -> Self {
        if self.lies == 0 || random.up_to(self.lies - 1) != 0 {
            return self;
        }

        let number = random.next();

        // The last three bring a ring to a standstill, so they are rare.
        //
        // CAST: Cut on purpose, here and below.
        match random.up_to(255) {
            0..64 => self.reports(number as u32 as usize),
            64..112 => self.reports(number as u8 as usize),
            112..128 => self.reports(0),
            128..144 => self.bad(),
            144..192 => self.ends(number % 2 == 0),
            192..253 => self.twice_after((number % 16) as u32),
            253 => self.keeps(),
            254 => Self {
                place: Place::Any(number),
                ..self
            },
            _ => self.unreported(),
        }
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

/// Something that a device was told.
#[derive(Clone, Copy)]
pub(super) struct Event<T> {
    pub(super) what: T,
    pub(super) fate: Fate,
    /// If it was carried out before and is only reported again: how many bytes were moved.
    pub(super) again: Option<usize>,
    due: u64,
    order: u64,
}

/// Events, of which the first can be had: a binary heap.
struct Heap<T> {
    key: fn(&Event<T>) -> (u64, u64),
    events: KVec<Event<T>>,
}

impl<T: Copy> Heap<T> {
    fn new(key: fn(&Event<T>) -> (u64, u64)) -> Self {
        Self {
            key,
            events: KVec::new(),
        }
    }

    fn is_before(&self, a: usize, b: usize) -> bool {
        (self.key)(&self.events[a]) < (self.key)(&self.events[b])
    }

    fn push(&mut self, event: Event<T>) -> Result {
        let mut at = self.events.len();

        self.events.push(event, GFP_ATOMIC)?;

        while at > 0 && self.is_before(at, (at - 1) / 2) {
            self.events.swap(at, (at - 1) / 2);
            at = (at - 1) / 2;
        }

        Ok(())
    }

    fn first(&self) -> Option<&Event<T>> {
        self.events.first()
    }

    fn pop(&mut self) -> Option<Event<T>> {
        let last = self.events.len().checked_sub(1)?;

        self.events.swap(0, last);

        let event = self.events.pop();

        self.sink(0);
        event
    }

    /// Moves an event behind those that come before it.
    fn sink(&mut self, mut at: usize) {
        loop {
            let mut first = at;

            for child in [2 * at + 1, 2 * at + 2] {
                if child < self.events.len() && self.is_before(child, first) {
                    first = child;
                }
            }

            if first == at {
                return;
            }

            self.events.swap(at, first);
            at = first;
        }
    }

    /// Drops some; returns how many.
    fn remove(&mut self, mut is_meant: impl FnMut(&Event<T>) -> bool) -> usize {
        let before = self.events.len();

        self.events.retain(|event| !is_meant(event));

        if self.events.len() < before {
            for at in (0..self.events.len() / 2).rev() {
                self.sink(at);
            }
        }

        before - self.events.len()
    }
}

/// What a device was told and has not carried out yet.
pub(super) struct Schedule<T> {
    now: u64,
    random: Random,
    fates: Queue<Fate>,
    usual: Fate,
    /// By the time at which they are due.
    events: Heap<T>,
    /// What was due and has to wait for something else than time, as the device was told of it.
    waiting: Heap<T>,
    /// How many of both are not carried out.
    pending: usize,
    asked: u64,
}

impl<T: Copy> Schedule<T> {
    pub(super) fn new(seed: u64, usual: Fate) -> Self {
        Self {
            now: 0,
            random: Random::new(seed),
            fates: Queue::new(),
            usual,
            events: Heap::new(|event| (event.due, event.order)),
            waiting: Heap::new(|event| (0, event.order)),
            pending: 0,
            asked: 0,
        }
    }

    /// Says what becomes of the next request that has no fate yet.
    pub(super) fn then(&mut self, fate: Fate) -> Result {
        self.fates.push(fate)
    }

    /// Makes room for so many requests, also if all have to wait.
    pub(super) fn reserve(&mut self, count: usize) -> Result {
        self.events.events.reserve(count, GFP_ATOMIC)?;
        Ok(self
            .waiting
            .events
            .reserve(self.pending + count, GFP_ATOMIC)?)
    }

    /// Returns how many fates no request has had.
    pub(super) fn unused(&self) -> usize {
        self.fates.len()
    }

    pub(super) fn ask(&mut self, what: T) -> Result {
        self.reserve(1)?;

        let fate = self.fates.pop().unwrap_or(self.usual);
        let fate = fate.draw(&mut self.random);
        let due = match fate.delay {
            Delay::After(ticks) => self.now + u64::from(ticks),
            Delay::Within(ticks) => self.now + self.random.up_to(ticks),
            Delay::Never => u64::MAX,
        };

        self.asked += 1;
        self.pending += 1;
        self.events.push(Event {
            what,
            fate,
            again: None,
            due,
            order: self.asked,
        })
    }

    pub(super) fn tick(&mut self, ticks: u32) {
        self.now += u64::from(ticks);
    }

    /// Takes the first event whose time has come.
    pub(super) fn due(&mut self) -> Option<Event<T>> {
        if self.events.first()?.due > self.now {
            return None;
        }

        let event = self.events.pop()?;

        if event.again.is_none() {
            self.pending -= 1;
        }

        Some(event)
    }

    /// An event was carried out; it may have to be reported again.
    pub(super) fn done(&mut self, event: Event<T>, moved: usize) {
        if let (Some(ticks), None) = (event.fate.again, event.again) {
            let _ = self.events.push(Event {
                again: Some(moved),
                due: self.now + u64::from(ticks),
                ..event
            });
        }
    }

    /// Puts an event off that can't be carried out yet, until [`resume()`](Self::resume).
    pub(super) fn put_off(&mut self, event: Event<T>) {
        // There is room: it was reserved.
        if self.waiting.push(event).is_ok() {
            self.pending += 1;
        }
    }

    /// Takes the first event that was put off.
    pub(super) fn resume(&mut self) -> Option<Event<T>> {
        let event = self.waiting.pop()?;

        self.pending -= 1;
        Some(event)
    }

    /// Drops what is not carried out yet and is meant.
    pub(super) fn forget(&mut self, is_meant: impl Fn(&T) -> bool) {
        let is_meant = |event: &Event<T>| event.again.is_none() && is_meant(&event.what);

        self.pending -= self.events.remove(is_meant) + self.waiting.remove(is_meant);
    }

    /// Returns how many requests are not carried out.
    pub(super) fn pending(&self) -> usize {
        self.pending
    }

    pub(super) fn clear(&mut self) {
        self.events.events.clear();
        self.waiting.events.clear();
        self.pending = 0;
    }
}
