// SPDX-License-Identifier: GPL-2.0

//! A device that works off a ring of descriptors, as network and storage controllers do.

use super::{
    bus::Access,
    device::{
        Device,
        Worker, //
    },
    schedule::{
        Event,
        Fate, //
    },
    Sim, //
};
use crate::{
    dma::{
        DmaAddress,
        Untrusted, //
    },
    new_spinlock_irq,
    prelude::*,
    sync::{
        Arc,
        SpinLockIrq, //
    }, //
};

/// The size of a descriptor, in bytes.
const DESCRIPTOR: usize = 16;

/// The longest frame, in bytes.
const MAX_FRAME: usize = 64 << 10;

/// A simulated descriptor-ring device.
///
/// A descriptor has 16 bytes, all little endian:
///
/// ```text
///   0   8  bus address of the buffer
///   8   4  length of the buffer; when it is done, how many bytes were moved
///  12   4  flags
/// ```
///
/// The driver writes descriptors and then the tail, the index of the first one that is not ready.
/// For each up to there the device reads a frame from the buffer and sends it, or
/// ([`WRITE`](Self::WRITE)) writes the next received frame to it; in which order is up to the
/// script. Then it writes the descriptor back, with [`DONE`](Self::DONE), and interrupts. What is
/// sent is received again if [`loopback`](Self::loopback) says so.
///
/// What its methods do is what a driver's accesses to registers do, except for those that say that
/// they are for the test.
///
/// # Examples
///
/// ```
/// use kernel::{
///     dma::{fixture::ensure, sim::{self, Model, RingConsumer, Script}},
///     prelude::*,
/// };
///
/// sim::run(Script::new(Model::Bounce), |_pdev, sim| {
///     let nic = RingConsumer::new(sim)?;
///
///     nic.receive(b"a frame from elsewhere")?;
///     ensure!(nic.next_sent().is_none());
///     Ok(())
/// })?;
/// # Ok::<(), Error>(())
/// ```
#[pin_data]
pub struct RingConsumer {
    sim: Arc<Sim>,
    #[pin]
    state: SpinLockIrq<State>,
}

struct State {
    base: DmaAddress,
    entries: usize,
    tail: usize,
    worker: Worker<usize>,
    loopback: bool,
    received: KVec<KVec<u8>>,
    sent: KVec<KVec<u8>>,
}

/// Returns the `N` bytes from `at` on.
fn part<const N: usize>(descriptor: &[u8; DESCRIPTOR], at: usize) -> [u8; N] {
    let mut bytes = [0; N];

    bytes.copy_from_slice(&descriptor[at..at + N]);
    bytes
}

impl State {
    /// Returns where a descriptor is. The device believes what it is told, also nonsense.
    fn descriptor(&self, index: usize) -> DmaAddress {
        // CAST: Cut on purpose.
        self.base
            .wrapping_add(index.wrapping_mul(DESCRIPTOR) as DmaAddress)
    }
}

impl RingConsumer {
    /// The driver asks the device to write the buffer.
    pub const WRITE: u32 = 1;

    /// The device is done with the buffer.
    pub const DONE: u32 = 1 << 31;

    /// Puts a device on the bus. For the test.
    ///
    /// Context: may sleep.
    ///
    /// # Errors
    ///
    /// [`ENOMEM`].
    pub fn new(sim: &Arc<Sim>) -> Result<Arc<Self>> {
        let state = State {
            base: 0,
            entries: 0,
            tail: 0,
            worker: Worker::new(sim),
            loopback: false,
            received: KVec::new(),
            sent: KVec::new(),
        };
        let this = Arc::pin_init(Self::init(sim.clone(), state), GFP_KERNEL)?;

        sim.attach(this.clone())?;
        Ok(this)
    }

    // One place, hence one lockdep class.
    #[inline(never)]
    fn init(sim: Arc<Sim>, state: State) -> impl PinInit<Self> {
        pin_init!(Self {
            sim,
            state <- new_spinlock_irq!(state),
        })
    }

    /// Says what becomes of the next descriptor that has no fate yet. For the test.
    ///
    /// Context: any.
    ///
    /// # Errors
    ///
    /// [`ENOMEM`].
    pub fn then(&self, fate: Fate) -> Result {
        self.state.lock().worker.schedule.then(fate)
    }

    /// Lets the device receive what it sends. For the test.
    ///
    /// Context: any.
    pub fn loopback(&self, on: bool) {
        self.state.lock().loopback = on;
    }

    /// A frame arrives at the device; it waits there for a descriptor. For the test.
    ///
    /// Context: any.
    ///
    /// # Errors
    ///
    /// [`EINVAL`] if it is longer than 64 KiB, [`ENOMEM`].
    pub fn receive(&self, frame: &[u8]) -> Result {
        if frame.len() > MAX_FRAME {
            return Err(EINVAL);
        }

        let mut copy = KVec::with_capacity(frame.len(), GFP_ATOMIC)?;

        copy.extend_from_slice(frame, GFP_ATOMIC)?;
        Ok(self.state.lock().received.push(copy, GFP_ATOMIC)?)
    }

    /// Takes the first frame that the device has sent, and not looped back. For the test.
    ///
    /// Context: any.
    pub fn next_sent(&self) -> Option<KVec<u8>> {
        self.state.lock().sent.remove(0).ok()
    }

    /// Tells the device where its ring is, and how many descriptors it has.
    ///
    /// Context: any.
    ///
    /// # Errors
    ///
    /// - [`EINVAL`] for less than two descriptors: a ring is never full;
    /// - [`EBUSY`] if the device is at work;
    /// - [`ENODEV`] if it is gone, [`ESHUTDOWN`] if it has stopped.
    pub fn set_ring(&self, base: DmaAddress, entries: usize) -> Result {
        let mut state = self.state.lock();

        state.worker.check()?;

        if entries < 2 {
            return Err(EINVAL);
        }

        if state.worker.schedule.pending() > 0 {
            return Err(EBUSY);
        }

        state.base = base;
        state.entries = entries;
        state.tail = 0;
        Ok(())
    }

    /// Tells the device that the descriptors before `tail` are ready.
    ///
    /// Context: any.
    ///
    /// # Errors
    ///
    /// - [`EINVAL`] if there is no such descriptor;
    /// - [`ENODEV`] if it is gone, [`ESHUTDOWN`] if it has stopped;
    /// - [`ENOMEM`]: the device takes no notice.
    pub fn doorbell(&self, tail: usize) -> Result {
        let mut state = self.state.lock();

        state.worker.check()?;

        if tail >= state.entries {
            return Err(EINVAL);
        }

        let count = (tail + state.entries - state.tail) % state.entries;

        state.worker.schedule.reserve(count)?;

        while state.tail != tail {
            let index = state.tail;

            state.worker.schedule.ask(index)?;
            state.tail = (index + 1) % state.entries;
        }

        drop(state);
        self.advance(0);
        Ok(())
    }

    /// Returns how many descriptors the device has not carried out. A tick passes.
    ///
    /// Context: any.
    ///
    /// # Errors
    ///
    /// [`ENODEV`] if it is gone.
    pub fn left(&self) -> Result<Untrusted<usize>> {
        self.sim.look();

        let state = self.state.lock();

        state.worker.answers()?;
        Ok(Untrusted::new(state.worker.schedule.pending()))
    }

    /// Tells the device to stop.
    ///
    /// Context: any.
    pub fn stop(&self) {
        self.state.lock().worker.stop();
    }

    /// Lets a device that has stopped take requests again.
    ///
    /// Context: any.
    ///
    /// # Errors
    ///
    /// [`ENODEV`] if it is gone.
    pub fn restart(&self) -> Result {
        self.state.lock().worker.restart()
    }

    /// Returns whether the device has stopped. A tick passes.
    ///
    /// Context: any.
    ///
    /// # Errors
    ///
    /// [`ENODEV`] if it is gone.
    pub fn is_stopped(&self) -> Result<bool> {
        self.sim.look();
        self.state.lock().worker.is_stopped()
    }

    /// Carries out a descriptor; returns how many bytes were moved, or `None` if it has to wait.
    fn carry_out(&self, state: &mut State, index: usize) -> Result<Option<usize>> {
        let at = state.descriptor(index);
        let mut descriptor = [0; DESCRIPTOR];

        self.fetch(state, at, &mut descriptor)?;

        let addr = u64::from_le_bytes(part(&descriptor, 0));
        // CAST: Widening.
        let len = u32::from_le_bytes(part(&descriptor, 8)) as usize;
        let flags = u32::from_le_bytes(part(&descriptor, 12));

        if flags & Self::WRITE != 0 {
            let Ok(frame) = state.received.remove(0) else {
                return Ok(None);
            };
            let moved = len.min(frame.len());

            self.sim.access(
                addr,
                Access::Write(&frame[..moved]),
                state.worker.has_stopped(),
            );
            return Ok(Some(moved));
        }

        let mut frame = KVec::from_elem(0, len.min(MAX_FRAME), GFP_ATOMIC)?;

        self.fetch(state, addr, &mut frame)?;

        if state.loopback {
            state.received.push(frame, GFP_ATOMIC)?;
        } else {
            state.sent.push(frame, GFP_ATOMIC)?;
        }

        Ok(Some(len))
    }

    fn fetch(&self, state: &State, addr: DmaAddress, to: &mut [u8]) -> Result {
        let stopped = state.worker.has_stopped();

        if self.sim.access(addr, Access::Read(to), stopped) {
            Ok(())
        } else {
            Err(EFAULT)
        }
    }

    /// Writes a descriptor back.
    fn report(&self, state: &State, event: &Event<usize>, moved: usize) {
        // What the device reports may be anything; more than fits is cut.
        let moved = event.fate.reports.unwrap_or(moved) as u32;
        let index = event.fate.elsewhere.unwrap_or(event.what);
        let at = state.descriptor(index).wrapping_add(8);
        let mut words = [0; 8];

        words[..4].copy_from_slice(&moved.to_le_bytes());
        words[4..].copy_from_slice(&Self::DONE.to_le_bytes());
        self.sim
            .access(at, Access::Write(&words), state.worker.has_stopped());
    }
}

impl Device for RingConsumer {
    fn advance(&self, ticks: u32) {
        self.state.lock().worker.schedule.tick(ticks);

        loop {
            let mut state = self.state.lock();
            let Some(event) = state.worker.schedule.due() else {
                return;
            };

            if let Some(moved) = event.again {
                self.report(&state, &event, moved);
            } else {
                match self.carry_out(&mut state, event.what) {
                    Ok(Some(moved)) => {
                        self.report(&state, &event, moved);
                        state.worker.schedule.done(event, moved);
                    }
                    Ok(None) => {
                        state.worker.schedule.put_off(event);
                        continue;
                    }
                    // A fault, or no bus mastering: nothing that it could tell the driver.
                    Err(_) => continue,
                }
            }

            // The handler may look at the device.
            drop(state);
            self.sim.interrupt();
        }
    }

    fn pending(&self) -> usize {
        self.state.lock().worker.schedule.pending()
    }

    fn unused(&self) -> usize {
        self.state.lock().worker.schedule.unused()
    }

    fn pull(&self) {
        self.state.lock().worker.pull();
    }
}
