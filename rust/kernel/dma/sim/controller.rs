// SPDX-License-Identifier: GPL-2.0

//! A device with queues of commands, which it carries out in any order, as storage controllers do.

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

/// The sizes of a command, of an item of a list, and of a completion, in bytes.
const COMMAND: usize = 32;
const ITEM: usize = 16;
const COMPLETION: usize = 16;

/// Where in a completion the word is that says that it is new.
const WORD: usize = 12;

/// How many queues of each kind there are.
const QUEUES: usize = 2;

/// The longest list, and the most bytes of a command.
const MAX_ITEMS: usize = 64;
const MAX_BYTES: usize = 64 << 10;

/// A simulated device with two submission queues and two completion queues.
///
/// A command has 32 bytes, all little endian:
///
/// ```text
///   0   4  flags
///   4   4  tag
///   8   8  bus address of the memory, or of a list of items
///  16   4  length of the memory, or how many items the list has
///  20   4  which submission queue this is, for the completion
///  24   8  an argument, from which the bytes are made that the device writes
/// ```
///
/// With [`LIST`](Self::LIST), the memory is in pieces. Each item of the list has 16 bytes: address
/// (8), length (4), flags (4). The device reads memory with [`READ`](Self::READ) and writes it with
/// [`WRITE`](Self::WRITE), or does one after the other.
///
/// A completion has 16 bytes:
///
/// ```text
///   0   4  how many bytes were moved
///   4   2  of which submission queue
///   6   2  1 if it is an event, and about no command
///   8   4  tag
///  12   4  bit 0: the phase, which is 1 in the first turn of the queue; bit 1: it has failed
/// ```
///
/// The device fetches commands in order, as late as it can: when it carries out one of them, or one
/// that comes later. It carries them out when the script says so. Then it writes a completion, if
/// there is room: one entry of the queue stays free. If there is no room it waits, and that is
/// [counted](Self::waits). Then it interrupts.
///
/// A command whose tag was in a completion isn't carried out any more, also if that was a lie: from
/// then on its memory may be the driver's.
///
/// Of a script's fates, [`Fate::reports_at`] makes the device report another tag, [`Fate::bad`]
/// that the command has failed, and [`Fate::twice`] the same completion once more. Those about the
/// ends of frames and own bits do nothing.
///
/// What its methods do is what a driver's accesses to registers do, except for those that say that
/// they are for the test.
///
/// # Examples
///
/// ```
/// use kernel::{
///     dma::{fixture::ensure, sim::{self, Controller, Model, Script}},
///     prelude::*,
/// };
///
/// sim::run(Script::new(Model::Bounce), |_pdev, sim| {
///     let device = Controller::new(sim)?;
///
///     ensure!(device.waits() == 0);
///     ensure!(device.next_read().is_none());
///     Ok(())
/// })?;
/// # Ok::<(), Error>(())
/// ```
#[pin_data]
pub struct Controller {
    sim: Arc<Sim>,
    dev: ARef<device::Device>,
    #[pin]
    state: SpinLockIrq<State>,
}

/// What the device knows of a submission queue.
#[derive(Clone, Copy, Default)]
struct Submissions {
    base: DmaAddress,
    entries: usize,
    /// Where its commands complete.
    completions: usize,
    /// The first entry that is not ready.
    tail: usize,
    /// How many commands the device was told of, and how many it has fetched.
    told: u64,
    fetched: u64,
    /// The entry to be fetched next.
    next: usize,
}

/// What the device knows of a completion queue.
#[derive(Clone, Copy, Default)]
struct Completions {
    base: DmaAddress,
    entries: usize,
    /// The entry to be written next, and the first that the driver has not consumed.
    tail: usize,
    head: usize,
    /// Whether the queue is in its second turn, the fourth and so on.
    odd: bool,
}

/// A command that is to be carried out: which one of which queue.
#[derive(Clone, Copy, PartialEq)]
struct Request {
    queue: usize,
    number: u64,
    /// When it was carried out: its tag.
    tag: u32,
}

/// A command that was fetched.
#[derive(Clone, Copy)]
struct Fetched {
    request: Request,
    command: [u8; COMMAND],
}

/// What the device has read for a command.
pub struct ReadCommand {
    /// The argument of the command.
    pub argument: u64,

    /// The bytes.
    pub bytes: KVec<u8>,
}

/// A completion that the device makes up.
#[derive(Clone, Copy, Default)]
pub struct Forged {
    /// Of which submission queue.
    pub queue: u16,

    /// The tag.
    pub tag: u32,

    /// How many bytes it claims to have moved.
    pub moved: u32,

    /// Whether it is an event, and about no command.
    pub event: bool,
}

struct State {
    submissions: [Submissions; QUEUES],
    completions: [Completions; QUEUES],
    worker: Worker<Request>,
    fetched: KVec<Fetched>,
    read: Queue<ReadCommand>,
    /// How many commands wait for room, how many of them are to try again, and how often one had to
    /// wait.
    waiting: usize,
    retries: usize,
    waits: usize,
}

/// Returns the `N` bytes from `at` on.
fn part<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut part = [0; N];

    part.copy_from_slice(&bytes[at..at + N]);
    part
}

/// Returns what comes after an index.
fn after(index: usize, entries: usize) -> usize {
    if index + 1 < entries {
        index + 1
    } else {
        0
    }
}

/// Returns where an entry is. The device believes what it is told, also nonsense.
fn entry(base: DmaAddress, index: usize, size: usize) -> DmaAddress {
    // CAST: Cut on purpose.
    base.wrapping_add(index.wrapping_mul(size) as DmaAddress)
}

impl State {
    /// Fetches the commands of a queue up to the one of a number.
    fn fetch(&mut self, bus: &mut Bus, queue: usize, number: u64) -> Result {
        let stopped = self.worker.has_stopped();
        let from = &mut self.submissions[queue];

        while from.fetched <= number {
            let mut command = [0; COMMAND];

            self.fetched.reserve(1, GFP_ATOMIC)?;

            if !bus.access(
                entry(from.base, from.next, COMMAND),
                Access::Read(&mut command),
                stopped,
            ) {
                return Err(EFAULT);
            }

            let request = Request {
                queue,
                number: from.fetched,
                tag: u32::from_le_bytes(part(&command, 4)),
            };

            self.fetched
                .push(Fetched { request, command }, GFP_ATOMIC)?;
            from.fetched += 1;
            from.next = after(from.next, from.entries);
        }

        Ok(())
    }

    /// Carries out a command; returns its tag, and how many bytes were moved, or `None` if it was
    /// reported already.
    fn carry_out(&mut self, bus: &mut Bus, request: &Request) -> Result<Option<(u32, usize)>> {
        self.fetch(bus, request.queue, request.number)?;

        let is_meant = |other: &Fetched| {
            other.request.queue == request.queue && other.request.number == request.number
        };
        let Some(at) = self.fetched.iter().position(is_meant) else {
            return Ok(None);
        };
        let Ok(Fetched { request, command }) = self.fetched.remove(at) else {
            return Ok(None);
        };

        let flags = u32::from_le_bytes(part(&command, 0));
        let address = u64::from_le_bytes(part(&command, 8));
        // CAST: Widening, here and below.
        let len = u32::from_le_bytes(part(&command, 16)) as usize;
        let argument = u64::from_le_bytes(part(&command, 24));
        let mut moved = 0;
        let mut read = ReadCommand {
            argument,
            bytes: KVec::new(),
        };

        if flags & Controller::LIST != 0 {
            for index in 0..len.min(MAX_ITEMS) {
                let mut item = [0; ITEM];

                self.access(bus, entry(address, index, ITEM), Access::Read(&mut item))?;

                let len = u32::from_le_bytes(part(&item, 8)) as usize;
                let flags = u32::from_le_bytes(part(&item, 12));

                self.move_piece(
                    bus,
                    u64::from_le_bytes(part(&item, 0)),
                    len,
                    flags,
                    moved,
                    &mut read,
                )?;
                moved += len;
            }
        } else if flags & (Controller::READ | Controller::WRITE) != 0 {
            self.move_piece(bus, address, len, flags, 0, &mut read)?;
            moved = len;
        }

        if !read.bytes.is_empty() {
            self.read.push(read)?;
        }

        Ok(Some((request.tag, moved)))
    }

    fn access(&self, bus: &mut Bus, addr: DmaAddress, access: Access<'_>) -> Result {
        if bus.access(addr, access, self.worker.has_stopped()) {
            Ok(())
        } else {
            Err(EFAULT)
        }
    }

    /// Reads or writes a piece of memory. `from` is where in the command it begins.
    fn move_piece(
        &self,
        bus: &mut Bus,
        addr: u64,
        len: usize,
        flags: u32,
        from: usize,
        read: &mut ReadCommand,
    ) -> Result {
        let len = len.min(MAX_BYTES);

        if flags & Controller::READ != 0 {
            let start = read.bytes.len();

            read.bytes.resize(start + len, 0, GFP_ATOMIC)?;
            self.access(bus, addr, Access::Read(&mut read.bytes[start..]))?;
        }

        if flags & Controller::WRITE != 0 {
            let mut bytes = KVec::with_capacity(len, GFP_ATOMIC)?;

            for i in 0..len {
                bytes.push(Controller::byte(read.argument, from + i), GFP_ATOMIC)?;
            }

            self.access(bus, addr, Access::WriteLate(&bytes))?;
        }

        Ok(())
    }

    /// Whether there is room for a completion of a submission queue.
    fn has_room(&self, queue: usize) -> bool {
        let to = &self.completions[self.submissions[queue].completions];

        to.entries > 0 && after(to.tail, to.entries) != to.head
    }

    /// Writes a completion, for which there is room, to a completion queue.
    fn post(&mut self, bus: &mut Bus, completions: usize, forged: Forged, failed: bool) {
        let Forged {
            queue,
            tag,
            moved,
            event,
        } = forged;
        let stopped = self.worker.has_stopped();

        // The driver may take the memory of the command now.
        if !event {
            self.disown(bus, queue.into(), tag);
        }

        let to = &mut self.completions[completions];
        let at = entry(to.base, to.tail, COMPLETION);
        let word = u32::from(!to.odd) | if failed { 2 } else { 0 };
        let mut bytes = [0; COMPLETION];

        bytes[..4].copy_from_slice(&moved.to_le_bytes());
        bytes[4..6].copy_from_slice(&queue.to_le_bytes());
        bytes[6] = event.into();
        bytes[8..12].copy_from_slice(&tag.to_le_bytes());
        bytes[WORD..].copy_from_slice(&word.to_le_bytes());

        if bus.is_weak() {
            // CAST: Small.
            let at_word = at.wrapping_add(WORD as DmaAddress);

            bus.access(at, Access::WriteLate(&bytes[..WORD]), stopped);
            bus.access(at_word, Access::Write(&bytes[WORD..]), stopped);
        } else {
            bus.access(at, Access::Write(&bytes), stopped);
        }

        to.tail = after(to.tail, to.entries);

        if to.tail == 0 {
            to.odd = !to.odd;
        }
    }

    /// Forgets the commands of a queue that have a tag.
    fn disown(&mut self, bus: &mut Bus, queue: usize, tag: u32) {
        let Some(from) = self.submissions.get(queue) else {
            return;
        };

        if let Some(last) = from.told.checked_sub(1) {
            // What can't be fetched isn't carried out, either.
            let _ = self.fetch(bus, queue, last);
        }

        let is_meant = |request: &Request| request.queue == queue && request.tag == tag;

        while let Some(at) = self.fetched.iter().position(|one| is_meant(&one.request)) {
            if let Ok(Fetched { request, .. }) = self.fetched.remove(at) {
                self.worker
                    .schedule
                    .forget(|other| other.queue == request.queue && other.number == request.number);
            }
        }
    }

    /// Reports a command; returns whether the device does.
    fn report(&mut self, bus: &mut Bus, event: &Event<Request>, moved: usize) -> bool {
        let fate = &event.fate;

        if fate.unreported {
            return false;
        }

        let tag = match fate.place {
            Place::Own => event.what.tag,
            // What the device reports may be anything; more than fits is cut. CAST: On purpose,
            // here and below.
            Place::At(tag) => tag as u32,
            Place::Any(number) => number as u32 & 0xffff,
        };
        let forged = Forged {
            queue: event.what.queue as u16,
            tag,
            moved: fate.reports.unwrap_or(moved) as u32,
            event: false,
        };
        let completions = self.submissions[event.what.queue].completions;

        self.post(bus, completions, forged, fate.bad);
        true
    }

    /// Takes what is to be carried out next: what was waiting for room, if there may be some now.
    fn next(&mut self) -> Option<Event<Request>> {
        if let Some(left) = self.retries.checked_sub(1) {
            self.retries = left;
            self.waiting -= 1;

            if let Some(event) = self.worker.schedule.resume() {
                return Some(event);
            }
        }

        self.worker.schedule.due()
    }

    /// Forgets all queues, and what is half done.
    fn forget(&mut self, bus: &mut Bus) {
        for from in &self.submissions {
            bus.release_stores(from.base);
        }

        self.submissions = [Submissions::default(); QUEUES];
        self.completions = [Completions::default(); QUEUES];
        self.fetched.clear();
        self.waiting = 0;
        self.retries = 0;
    }
}

impl Controller {
    /// The device reads the memory.
    pub const READ: u32 = 1;

    /// The device writes the memory.
    pub const WRITE: u32 = 1 << 1;

    /// The memory is in pieces, of which there is a list.
    pub const LIST: u32 = 1 << 2;

    /// Returns the byte that the device writes at a place of a command with that argument.
    pub fn byte(argument: u64, at: usize) -> u8 {
        // CAST: Cut on purpose.
        (argument as usize).wrapping_add(at.wrapping_mul(7)) as u8
    }

    /// Puts a device on the bus. For the test.
    ///
    /// Context: may sleep.
    ///
    /// # Errors
    ///
    /// [`ENOMEM`].
    pub fn new(sim: &Arc<Sim>) -> Result<Arc<Self>> {
        let state = State {
            submissions: [Submissions::default(); QUEUES],
            completions: [Completions::default(); QUEUES],
            worker: Worker::new(sim),
            fetched: KVec::new(),
            read: Queue::new(),
            waiting: 0,
            retries: 0,
            waits: 0,
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

    /// Says what becomes of the next command that has no fate yet. For the test.
    ///
    /// Context: any.
    ///
    /// # Errors
    ///
    /// [`ENOMEM`].
    pub fn then(&self, fate: Fate) -> Result {
        self.state.lock().worker.schedule.then(fate)
    }

    /// Takes what the device has read for the first command of which that wasn't taken. For the
    /// test.
    ///
    /// Context: any.
    pub fn next_read(&self) -> Option<ReadCommand> {
        self.state.lock().read.pop()
    }

    /// Returns how often a command had to wait for room in a completion queue. For the test.
    ///
    /// Context: any.
    pub fn waits(&self) -> usize {
        self.state.lock().waits
    }

    /// Lets the device write a completion that it makes up to a completion queue. For the test.
    ///
    /// Context: any.
    ///
    /// # Errors
    ///
    /// - [`EINVAL`] if there is no such queue;
    /// - [`ENOSPC`] if it is full;
    /// - [`ENODEV`] if the device is gone, [`ESHUTDOWN`] if it has stopped.
    pub fn forge(&self, completions: usize, forged: Forged) -> Result {
        self.update(|state| {
            state.worker.check()?;

            let to = state.completions.get(completions).ok_or(EINVAL)?;

            if to.entries == 0 || after(to.tail, to.entries) == to.head {
                return Err(ENOSPC);
            }

            let mut bus = self.sim.bus.lock();

            state.post(&mut bus, completions, forged, false);
            Ok(())
        })
    }

    /// Tells the device where a submission queue is, how many entries it has, and in which
    /// completion queue its commands complete.
    ///
    /// Context: any.
    ///
    /// # Errors
    ///
    /// - [`EINVAL`] if there is no such queue, or for less than two entries: a queue is never full;
    /// - [`ENODEV`] if the device is gone, [`ESHUTDOWN`] if it has stopped;
    /// - [`ENOMEM`].
    pub fn set_submissions(
        &self,
        queue: usize,
        base: DmaAddress,
        entries: usize,
        completions: usize,
    ) -> Result {
        let mut state = self.state.lock();

        state.worker.check()?;

        if queue >= QUEUES || completions >= QUEUES || entries < 2 {
            return Err(EINVAL);
        }

        self.sim.bus.lock().hold_stores(base, entries * COMMAND)?;
        state.submissions[queue] = Submissions {
            base,
            entries,
            completions,
            ..Submissions::default()
        };
        Ok(())
    }

    /// Tells the device where a completion queue is, and how many entries it has.
    ///
    /// Context: any.
    ///
    /// # Errors
    ///
    /// - [`EINVAL`] if there is no such queue, or for less than two entries;
    /// - [`ENODEV`] if the device is gone, [`ESHUTDOWN`] if it has stopped.
    pub fn set_completions(&self, queue: usize, base: DmaAddress, entries: usize) -> Result {
        let mut state = self.state.lock();

        state.worker.check()?;

        if queue >= QUEUES || entries < 2 {
            return Err(EINVAL);
        }

        state.completions[queue] = Completions {
            base,
            entries,
            ..Completions::default()
        };
        Ok(())
    }

    /// Tells the device that the commands before `tail` are ready.
    ///
    /// Context: any.
    ///
    /// # Errors
    ///
    /// - [`EINVAL`] if there is no such queue or entry;
    /// - [`ENODEV`] if the device is gone, [`ESHUTDOWN`] if it has stopped;
    /// - [`ENOMEM`]: the device takes no notice.
    pub fn doorbell(&self, queue: usize, tail: usize) -> Result {
        self.update(|state| {
            state.worker.check()?;

            let from = state.submissions.get_mut(queue).ok_or(EINVAL)?;

            if tail >= from.entries {
                return Err(EINVAL);
            }

            self.sim.order_stores();

            let wrapped = if tail < from.tail { from.entries } else { 0 };
            let count = tail + wrapped - from.tail;

            state.worker.schedule.reserve(count)?;

            for _ in 0..count {
                state.worker.schedule.ask(Request {
                    queue,
                    number: from.told,
                    tag: 0,
                })?;
                from.told += 1;
            }

            from.tail = tail;
            Ok(())
        })
    }

    /// Tells the device that the completions before `head` were seen.
    ///
    /// Context: any.
    ///
    /// # Errors
    ///
    /// - [`EINVAL`] if there is no such queue or entry;
    /// - [`ENODEV`] if the device is gone, [`ESHUTDOWN`] if it has stopped.
    pub fn consumed(&self, queue: usize, head: usize) -> Result {
        self.update(|state| {
            state.worker.check()?;

            let to = state.completions.get_mut(queue).ok_or(EINVAL)?;

            if head >= to.entries {
                return Err(EINVAL);
            }

            to.head = head;
            state.retries = state.waiting;
            Ok(())
        })
    }

    /// Returns how many commands the device has not carried out. A tick passes.
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

    /// Lets a device that has stopped take commands again. It has forgotten its queues.
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
            let mut bus = self.sim.bus.lock();

            state.forget(&mut bus);
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

            if !event.fate.unreported && !state.has_room(event.what.queue) {
                state.waits += 1;
                state.waiting += 1;
                state.worker.schedule.put_off(event);
                continue;
            }

            let reported = if let Some(moved) = event.again {
                state.report(&mut bus, &event, moved)
            } else {
                match state.carry_out(&mut bus, &event.what) {
                    Ok(Some((tag, moved))) => {
                        event.what.tag = tag;

                        let reported = state.report(&mut bus, &event, moved);

                        state.worker.schedule.done(event, moved);
                        reported
                    }
                    // Reported already; a fault, or no bus mastering: nothing that it could tell
                    // the driver.
                    Ok(None) | Err(_) => false,
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

impl Device for Controller {
    fn advance(&self, ticks: u32) {
        let _ = self.update(|state| {
            state.worker.schedule.tick(ticks);
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
