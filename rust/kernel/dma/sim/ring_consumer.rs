// SPDX-License-Identifier: GPL-2.0

//! A device that works off a ring of descriptors, as network and storage controllers do.

use super::{
    bus::{
        Access,
        Bus, //
    },
    device::{
        Device,
        Worker, //
    },
    queue::Queue,
    schedule::{
        Event,
        Fate,
        Place, //
    },
    Sim, //
};
use crate::{
    device,
    dma::{
        DmaAddress,
        Untrusted, //
    },
    new_spinlock_irq,
    prelude::*,
    sync::{
        aref::ARef,
        Arc,
        SpinLockIrq, //
    }, //
};

/// The size of a descriptor, in bytes.
const DESCRIPTOR: usize = 16;

/// Where in a descriptor its length is, and its flags.
const LENGTH: usize = 8;
const FLAGS: usize = 12;

/// The longest frame, in bytes.
const MAX_FRAME: usize = 64 << 10;

/// A simulated descriptor-ring device.
///
/// A descriptor has 16 bytes, all little endian:
///
/// ```text
///   0   8  bus address of the buffer
///   8   4  length of the buffer; when it is done, how many bytes were moved (but see
///          [`whole_lengths`](Self::whole_lengths))
///  12   4  flags
/// ```
///
/// How the driver publishes descriptors is up to it. It writes the tail, the index of the first one
/// that is not ready ([`set_ring`](Self::set_ring), [`doorbell`](Self::doorbell)). Or it sets
/// [`OWN`](Self::OWN) in each that is ready ([`set_ring_owned`](Self::set_ring_owned)): the device
/// looks at the next one at each tick, and when it is poked ([`poke`](Self::poke)).
///
/// The device gathers the bytes of a frame from the buffers of descriptors up to one with
/// [`END`](Self::END), and sends it. To a descriptor with [`WRITE`](Self::WRITE) it writes the next
/// received frame; one that is longer than the buffer goes on in the next such descriptor, and the
/// one that has the last byte is marked with `END`. A descriptor with [`CONTEXT`](Self::CONTEXT)
/// has no memory, and belongs to no frame. What is sent is received again if
/// [`loopback`](Self::loopback) says so.
///
/// The device carries descriptors out one by one, when the script says so. Each that is carried out
/// it writes back: the length, and [`DONE`](Self::DONE) as its flags, with `END` if a frame ends
/// there. Then it interrupts. Fates that let descriptors overtake each other mix up the parts of
/// frames that are in several.
///
/// A descriptor that was reported isn't touched any more, also if that was a lie: from then on its
/// buffer may be the driver's. One in which `OWN` is set wasn't reported, whatever else is written
/// there ([`Fate::keeps`]).
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
    dev: ARef<device::Device>,
    #[pin]
    state: SpinLockIrq<State>,
}

struct State {
    base: DmaAddress,
    entries: usize,
    /// The first descriptor that the driver has not published, as far as the device knows.
    tail: usize,
    /// With `OWN`: whether the device has taken a descriptor. Else it is empty.
    taken: KVec<bool>,
    worker: Worker<Request>,
    loopback: bool,
    /// Whether the length of a received frame is written where it ends, as a whole.
    whole_lengths: bool,
    received: Queue<KVec<u8>>,
    /// How many bytes of the first received frame are in memory already.
    written: usize,
    /// What is to become the next frame that is sent.
    gathered: KVec<u8>,
    sent: Queue<KVec<u8>>,
}

/// A descriptor that is to be carried out.
#[derive(Clone, Copy)]
struct Request {
    index: usize,
    /// If the device has read it already: what was in it.
    read: Option<[u8; DESCRIPTOR]>,
    /// When it was carried out: whether a frame ends there.
    ends: bool,
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

    /// Reads a descriptor if the device owns it.
    fn read_owned(&self, bus: &mut Bus, index: usize) -> Result<Option<[u8; DESCRIPTOR]>> {
        let at = self.descriptor(index);
        // CAST: Small.
        let at_flags = at.wrapping_add(FLAGS as DmaAddress);
        let mut descriptor = [0; DESCRIPTOR];

        // It is the store of the flags that publishes a descriptor.
        self.fetch(bus, at_flags, Access::ReadNow(&mut descriptor[FLAGS..]))?;

        if u32::from_le_bytes(part(&descriptor, FLAGS)) & RingConsumer::OWN == 0 {
            return Ok(None);
        }

        self.fetch(bus, at, Access::Read(&mut descriptor[..FLAGS]))?;
        Ok(Some(descriptor))
    }

    /// Carries out a descriptor; returns how many bytes are reported, and whether a frame ends
    /// there, or `None` if it has to wait.
    fn carry_out(&mut self, bus: &mut Bus, request: &Request) -> Result<Option<(usize, bool)>> {
        let descriptor = match request.read {
            Some(descriptor) => descriptor,
            None => {
                let mut descriptor = [0; DESCRIPTOR];
                let at = self.descriptor(request.index);

                self.fetch(bus, at, Access::Read(&mut descriptor))?;
                descriptor
            }
        };
        let addr = u64::from_le_bytes(part(&descriptor, 0));
        // CAST: Widening.
        let len = u32::from_le_bytes(part(&descriptor, LENGTH)) as usize;
        let flags = u32::from_le_bytes(part(&descriptor, FLAGS));

        if flags & RingConsumer::CONTEXT != 0 {
            return Ok(Some((0, false)));
        }

        if flags & RingConsumer::WRITE != 0 {
            return Ok(self.write_frame(bus, addr, len));
        }

        self.gather(bus, addr, len)?;

        let ends = flags & RingConsumer::END != 0;

        if ends {
            self.send()?;
        }

        Ok(Some((len, ends)))
    }

    /// Writes what fits of the first received frame, if there is one.
    fn write_frame(&mut self, bus: &mut Bus, addr: u64, len: usize) -> Option<(usize, bool)> {
        let frame = self.received.first()?;
        let end = frame.len().min(self.written.saturating_add(len));
        let ends = end == frame.len();
        let reported = match (self.whole_lengths, ends) {
            (false, _) => end - self.written,
            (true, false) => 0,
            (true, true) => end,
        };

        // What becomes of it the device doesn't know.
        bus.access(
            addr,
            Access::WriteLate(&frame[self.written..end]),
            self.worker.has_stopped(),
        );
        self.written = end;

        if ends {
            self.received.pop();
            self.written = 0;
        }

        Some((reported, ends))
    }

    /// Reads a part of a frame. What is too long is cut.
    fn gather(&mut self, bus: &mut Bus, addr: u64, len: usize) -> Result {
        let start = self.gathered.len();
        let end = MAX_FRAME.min(start.saturating_add(len));
        let mut gathered = core::mem::take(&mut self.gathered);

        gathered.resize(end, 0, GFP_ATOMIC)?;

        let fetched = self.fetch(bus, addr, Access::Read(&mut gathered[start..]));

        if fetched.is_err() {
            gathered.truncate(start);
        }

        self.gathered = gathered;
        fetched
    }

    fn fetch(&self, bus: &mut Bus, addr: DmaAddress, access: Access<'_>) -> Result {
        if bus.access(addr, access, self.worker.has_stopped()) {
            Ok(())
        } else {
            Err(EFAULT)
        }
    }

    /// Writes a descriptor back; returns whether the device does.
    fn report(&mut self, bus: &mut Bus, event: &Event<Request>, moved: usize) -> bool {
        let Request {
            index: own, ends, ..
        } = event.what;
        let fate = &event.fate;

        if fate.unreported {
            return false;
        }

        if fate.keeps && event.again.is_none() {
            if let Some(descriptor) = event.what.read {
                self.keep(bus, own, &descriptor);
                return true;
            }
        }

        // What the device reports may be anything; more than fits is cut. CAST: On purpose.
        let moved = fate.reports.unwrap_or(moved) as u32;
        let end = match fate.ends.unwrap_or(ends) {
            true => RingConsumer::END,
            false => 0,
        };
        let bad = if fate.bad { RingConsumer::BAD } else { 0 };
        let flags = RingConsumer::DONE | end | bad;
        let index = match fate.place {
            Place::Own => own,
            Place::At(index) => index,
            // CAST: Less than the number of descriptors.
            Place::Any(number) => (number % self.entries.max(1) as u64) as usize,
        };
        let stopped = self.worker.has_stopped();
        // CAST: Small, here and below.
        let at = self.descriptor(index).wrapping_add(LENGTH as DmaAddress);

        if bus.is_weak() {
            let at_flags = self.descriptor(index).wrapping_add(FLAGS as DmaAddress);

            bus.access(at, Access::WriteLate(&moved.to_le_bytes()), stopped);
            bus.access(at_flags, Access::Write(&flags.to_le_bytes()), stopped);
        } else {
            let mut words = [0; 8];

            words[..4].copy_from_slice(&moved.to_le_bytes());
            words[4..].copy_from_slice(&flags.to_le_bytes());
            bus.access(at, Access::Write(&words), stopped);
        }

        // The driver may take the buffer now.
        if index != own || event.again.is_some() {
            self.worker
                .schedule
                .forget(|request| request.index == index);
        }

        if let Some(taken) = self.taken.get_mut(index) {
            *taken = false;
        }

        true
    }

    /// Says that a descriptor is done, and leaves it as it was else: it stays the device's own, and
    /// is taken again when the device comes round.
    fn keep(&mut self, bus: &mut Bus, index: usize, descriptor: &[u8; DESCRIPTOR]) {
        let flags = u32::from_le_bytes(part(descriptor, FLAGS)) | RingConsumer::DONE;
        // CAST: Small.
        let at = self.descriptor(index).wrapping_add(FLAGS as DmaAddress);

        bus.access(
            at,
            Access::Write(&flags.to_le_bytes()),
            self.worker.has_stopped(),
        );

        if let Some(taken) = self.taken.get_mut(index) {
            *taken = false;
        }
    }

    /// Takes what is to be carried out next: what was waiting for a frame, if there is one now.
    fn next(&mut self) -> Option<Event<Request>> {
        let resumed = self
            .received
            .first()
            .is_some()
            .then(|| self.worker.schedule.resume());

        resumed.flatten().or_else(|| self.worker.schedule.due())
    }

    /// A frame is there to be sent; where it goes is up to the test.
    fn send(&mut self) -> Result {
        let frame = core::mem::take(&mut self.gathered);

        if self.loopback {
            self.received.push(frame)
        } else {
            self.sent.push(frame)
        }
    }

    /// Returns the index of the descriptor after one of the ring.
    // Not by a remainder, which panics where the divisor is 0: objtool doesn't know that this panic
    // doesn't return.
    fn after(&self, index: usize) -> usize {
        if index + 1 < self.entries {
            index + 1
        } else {
            0
        }
    }

    /// Forgets the ring, and what is half done.
    fn forget_ring(&mut self) {
        self.base = 0;
        self.entries = 0;
        self.tail = 0;
        self.taken = KVec::new();
        self.gathered = KVec::new();

        if core::mem::take(&mut self.written) > 0 {
            self.received.pop();
        }
    }
}

impl RingConsumer {
    /// The driver asks the device to write the buffer.
    pub const WRITE: u32 = 1;

    /// A frame ends with this buffer. Set by the driver where the device sends, and by the device
    /// in what it writes back.
    pub const END: u32 = 1 << 1;

    /// There is no buffer: the device does nothing but say that it is done.
    pub const CONTEXT: u32 = 1 << 2;

    /// What was sent or received is damaged. Set by the device in what it writes back.
    pub const BAD: u32 = 1 << 3;

    /// The descriptor is the device's, until it is done. Only for a ring that was made known by
    /// [`set_ring_owned`](Self::set_ring_owned).
    pub const OWN: u32 = 1 << 30;

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
            taken: KVec::new(),
            worker: Worker::new(sim),
            loopback: false,
            whole_lengths: false,
            received: Queue::new(),
            written: 0,
            gathered: KVec::new(),
            sent: Queue::new(),
        };
        let this = Arc::pin_init(Self::init(sim.clone(), sim.device()?, state), GFP_KERNEL)?;

        sim.attach(this.clone())?;
        Ok(this)
    }

    // One place, hence one lockdep class.
    #[inline(never)]
    fn init(sim: Arc<Sim>, dev: ARef<device::Device>, state: State) -> impl PinInit<Self> {
        pin_init!(Self {
            sim,
            dev,
            state <- new_spinlock_irq!(state),
        })
    }

    /// Returns the device whose addresses it uses.
    pub(super) fn device(&self) -> &device::Device {
        &self.dev
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

    /// Lets the device report the length of a received frame as a whole, in the descriptor where it
    /// ends, and zero in those before. For the test.
    ///
    /// Context: any.
    pub fn whole_lengths(&self, on: bool) {
        self.state.lock().whole_lengths = on;
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
        self.state.lock().received.push(copy)
    }

    /// Throws away the frames that wait for a descriptor. For the test.
    ///
    /// Context: any.
    pub fn forget_received(&self) {
        let mut state = self.state.lock();

        state.received = Queue::new();
        state.written = 0;
    }

    /// Takes the first frame that the device has sent, and not looped back. For the test.
    ///
    /// Context: any.
    pub fn next_sent(&self) -> Option<KVec<u8>> {
        self.state.lock().sent.pop()
    }

    /// Tells the device where its ring is, and how many descriptors it has. They are published by
    /// [`doorbell`](Self::doorbell).
    ///
    /// Context: any.
    ///
    /// # Errors
    ///
    /// - [`EINVAL`] for less than two descriptors: a ring is never full;
    /// - [`EBUSY`] if the device is at work;
    /// - [`ENODEV`] if it is gone, [`ESHUTDOWN`] if it has stopped;
    /// - [`ENOMEM`].
    pub fn set_ring(&self, base: DmaAddress, entries: usize) -> Result {
        if entries < 2 {
            return Err(EINVAL);
        }

        self.set(base, entries, KVec::new())
    }

    /// Tells the device where its ring is, and how many descriptors it has. They are published by
    /// [`OWN`](Self::OWN).
    ///
    /// The device takes one that it owns only once: it must be done with it before. When it can't
    /// access a buffer, that is never.
    ///
    /// Context: any.
    ///
    /// # Errors
    ///
    /// - [`EINVAL`] for no descriptors;
    /// - [`EBUSY`] if the device is at work;
    /// - [`ENODEV`] if it is gone, [`ESHUTDOWN`] if it has stopped;
    /// - [`ENOMEM`].
    pub fn set_ring_owned(&self, base: DmaAddress, entries: usize) -> Result {
        if entries == 0 {
            return Err(EINVAL);
        }

        let taken = KVec::from_elem(false, entries, GFP_ATOMIC | __GFP_NOWARN)?;

        self.set(base, entries, taken)
    }

    fn set(&self, base: DmaAddress, entries: usize, taken: KVec<bool>) -> Result {
        let mut state = self.state.lock();

        state.worker.check()?;

        if state.worker.schedule.pending() > 0 {
            return Err(EBUSY);
        }

        self.forget_ring(&mut state);

        let len = entries.checked_mul(DESCRIPTOR).ok_or(EINVAL)?;

        self.sim.bus.lock().hold_stores(base, len)?;
        state.base = base;
        state.entries = entries;
        state.taken = taken;
        Ok(())
    }

    fn forget_ring(&self, state: &mut State) {
        self.sim.bus.lock().release_stores(state.base);
        state.forget_ring();
    }

    /// Tells the device that the descriptors before `tail` are ready.
    ///
    /// Context: any.
    ///
    /// # Errors
    ///
    /// - [`EINVAL`] if there is no such descriptor, or if they are published otherwise;
    /// - [`ENODEV`] if the device is gone, [`ESHUTDOWN`] if it has stopped;
    /// - [`ENOMEM`]: the device takes no notice.
    pub fn doorbell(&self, tail: usize) -> Result {
        self.update(|state| {
            state.worker.check()?;

            if tail >= state.entries || !state.taken.is_empty() {
                return Err(EINVAL);
            }

            self.sim.order_stores();

            let wrapped = if tail < state.tail { state.entries } else { 0 };
            let count = tail + wrapped - state.tail;

            state.worker.schedule.reserve(count)?;

            while state.tail != tail {
                let index = state.tail;

                state.worker.schedule.ask(Request {
                    index,
                    read: None,
                    ends: false,
                })?;
                state.tail = state.after(index);
            }

            Ok(())
        })
    }

    /// Tells the device to look which descriptors it owns, without waiting for the next tick.
    ///
    /// Context: any.
    ///
    /// # Errors
    ///
    /// - [`EINVAL`] if there is no ring, or if its descriptors are published otherwise;
    /// - [`ENODEV`] if the device is gone, [`ESHUTDOWN`] if it has stopped.
    pub fn poke(&self) -> Result {
        self.update(|state| {
            state.worker.check()?;

            if state.taken.is_empty() {
                return Err(EINVAL);
            }

            self.sim.order_stores();
            self.take_owned(state);
            Ok(())
        })
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
    /// It has forgotten its ring, and the parts of frames that it had written or gathered. Received
    /// frames that were waiting still do.
    ///
    /// Context: any.
    ///
    /// # Errors
    ///
    /// [`ENODEV`] if it is gone.
    pub fn restart(&self) -> Result {
        let mut state = self.state.lock();
        let had_stopped = state.worker.has_stopped();

        state.worker.restart()?;

        if had_stopped {
            self.forget_ring(&mut state);
        }

        Ok(())
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

    /// Takes the descriptors that the device owns, from the next one on.
    fn take_owned(&self, state: &mut State) {
        if state.taken.is_empty() || !state.worker.goes_on() {
            return;
        }

        let mut bus = self.sim.bus.lock();

        while state.taken.get(state.tail) == Some(&false) {
            let index = state.tail;

            // Without room, or access, it looks again at the next tick.
            let Ok(Some(descriptor)) = state.read_owned(&mut bus, index) else {
                return;
            };
            let asked = state.worker.schedule.ask(Request {
                index,
                read: Some(descriptor),
                ends: false,
            });

            if asked.is_err() {
                return;
            }

            state.taken[index] = true;
            state.tail = state.after(index);
        }
    }

    /// Does something to the device, and carries out what is due then.
    fn update(&self, f: impl FnOnce(&mut State) -> Result) -> Result {
        let mut state = self.state.lock();

        f(&mut state)?;

        while self.work(&mut state) {
            // The handler may look at the device.
            drop(state);
            self.sim.raise();
            state = self.state.lock();
        }

        Ok(())
    }

    /// Carries out what is due, up to where a handler is to be called; returns whether one is.
    fn work(&self, state: &mut State) -> bool {
        while let Some(mut event) = state.next() {
            let mut bus = self.sim.bus.lock();

            let reported = if let Some(moved) = event.again {
                state.report(&mut bus, &event, moved)
            } else {
                match state.carry_out(&mut bus, &event.what) {
                    Ok(Some((moved, ends))) => {
                        event.what.ends = ends;

                        let reported = state.report(&mut bus, &event, moved);

                        state.worker.schedule.done(event, moved);
                        reported
                    }
                    Ok(None) => {
                        state.worker.schedule.put_off(event);
                        false
                    }
                    // A fault, or no bus mastering: nothing that it could tell the driver.
                    Err(_) => false,
                }
            };

            if reported {
                bus.note_interrupt();

                if self.sim.is_connected() {
                    return true;
                }
            }
        }

        false
    }
}

impl Device for RingConsumer {
    fn advance(&self, ticks: u32) {
        let _ = self.update(|state| {
            state.worker.schedule.tick(ticks);

            if ticks > 0 {
                self.take_owned(state);
            }

            Ok(())
        });
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
