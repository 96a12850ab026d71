// SPDX-License-Identifier: GPL-2.0

//! A driver for a device that carries out commands in any order, and its test on a simulated bus.
//!
//! `Documentation/rust/dma/queues.rst` shows parts of it.

use core::mem::{
    offset_of,
    replace, //
};
use kernel::{
    device::{
        Core,
        Device, //
    },
    dma::{
        fixture::ensure,
        queue::{
            Call,
            Commands,
            Completer,
            CompletionQueue,
            Completions,
            Either,
            Entry,
            Head,
            Payload,
            Private,
            QueueMemory,
            Submission,
            Submitter,
            Tail,
            Turn, //
        },
        sim::{
            self,
            Clock,
            Controller,
            ControllerStopper,
            Fate,
            Model,
            Script, //
        },
        DataDirection,
        FromDevice,
        Mapper,
        Pool,
        Session,
        StopOutcome,
        Streaming,
        StreamingBox,
        ToDevice,
        Untrusted, //
    },
    error::ErrorWith,
    irq,
    new_mutex,
    new_wait_queue,
    prelude::*,
    sync::{
        aref::ARef,
        Arc,
        Mutex,
        WaitQueue, //
    },
    time::Delta, //
};

module! {
    type: Sample,
    name: "rust_dma_queue",
    authors: ["The dma-rs authors"],
    description: "A driver with queues of commands, and its test",
    license: "GPL",
}

/// The tests are all there is.
struct Sample;

impl kernel::Module for Sample {
    fn init(_module: &'static ThisModule) -> Result<Self> {
        Ok(Self)
    }
}

// [start of a completion]
/// A completion, as the data sheet has it.
#[derive(Clone, Copy, FromBytes, IntoBytes)]
#[repr(C)]
struct Status {
    moved: u32,
    queue: u16,
    event: u16,
    tag: u32,
    /// Bit 0 is the phase; bit 1 says that the command has failed.
    word: u32,
}

impl Status {
    fn has_failed(&self) -> bool {
        u32::from_le(self.word) & 2 != 0
    }
}

// SAFETY: By the numbers of the contract:
// 1. The device writes the last word when all others are written.
// 2. The phase is 1 in the first turn, and changes with each turn. Zeros have phase 0.
// 3. The device echoes tag and queue. An entry with `event` set is about no command.
// 4. The device writes an entry when all data are moved, and forgets the command then.
unsafe impl Entry for Status {
    const WORD: usize = offset_of!(Status, word);

    fn is_new(word: u32, turn: Turn) -> bool {
        (word & 1 == 1) == turn.phase()
    }

    fn queue(&self) -> Untrusted<u16> {
        Untrusted::new(u16::from_le(self.queue))
    }

    fn tag(&self) -> Option<Untrusted<u32>> {
        (self.event == 0).then(|| Untrusted::new(u32::from_le(self.tag)))
    }

    fn moved(&self) -> Option<Untrusted<usize>> {
        // CAST: Widening.
        Some(Untrusted::new(u32::from_le(self.moved) as usize))
    }
}
// [end of a completion]

/// The registers: here, what the simulated device has instead.
#[derive(Clone)]
struct Registers(ARef<Device>, Arc<Controller>);

/// The registers of the completion queue.
struct Done(Registers);

// SAFETY: By the numbers of the contract:
// 1. The registers are those of the device.
// 2. The device writes entries one after the other. It keeps no queue that it refuses.
// 3. It waits while there is no free entry but one.
// 4. Writing to its registers is ordered.
// 5. The driver makes one for each queue.
unsafe impl CompletionQueue for Done {
    type Entry = Status;

    fn device(&self) -> &Device {
        &self.0 .0
    }

    fn start(&mut self, queue: QueueMemory<'_>) -> Result {
        // SAFETY: The queue and `running` are those of this device, which accesses entries only,
        // and forgets the queue when it is stopped.
        let base = unsafe { queue.memory.to_bits(queue.running) };

        // CAST: Widening.
        self.0 .1.set_completions(0, base, queue.len as usize)
    }

    fn consumed(&mut self, head: Head) {
        // A device that is gone takes no notice. CAST: Widening.
        let _ = self.0 .1.consumed(0, head.index() as usize);
    }
}

// [start of a command]
/// A command, as the data sheet has it.
#[derive(Clone, Copy, FromBytes, IntoBytes)]
#[repr(C)]
struct Command {
    flags: u32,
    tag: u32,
    address: u64,
    len: u32,
    queue: u32,
    sector: u64,
}

/// An item of a list of segments, for commands that have more than one.
#[derive(Clone, Copy, FromBytes, IntoBytes)]
#[repr(C)]
struct Item {
    address: u64,
    len: u32,
    flags: u32,
}

/// The registers of the submission queue.
struct Io(Registers);

// SAFETY: By the numbers of the contract:
// 1. The registers are those of the device.
// 2. The device fetches entries in order, up to the tail. It keeps no queue that it refuses.
// 3. `describe` names the segments, in the entry or in the scratch block, with their directions.
// 4. The entry has the tag. There is one submission queue, which has the number 0.
// 5. The device fetches all entries up to that of a command before it carries that out.
// 6. Writing to its registers is ordered.
// 7. The driver makes one for each queue.
unsafe impl Submission for Io {
    type Entry = Command;
    type Completion = Status;
    /// The first sector.
    type Command = u64;
    type Scratch = [Item; 4];
    const TAG_BITS: u32 = 16;

    fn device(&self) -> &Device {
        &self.0 .0
    }

    fn start(&mut self, queue: QueueMemory<'_>) -> Result {
        // SAFETY: As for `Done`; it accesses what the entries name, too.
        let base = unsafe { queue.memory.to_bits(queue.running) };

        // CAST: Widening.
        self.0 .1.set_submissions(0, base, queue.len as usize, 0)
    }

    fn describe<'a, P: Payload<'a>>(
        &self,
        sector: &u64,
        mut call: Call<'_, 'a, P, [Item; 4]>,
    ) -> Result<Command> {
        let mut command = Command {
            flags: 0,
            tag: call.tag().to_le(),
            address: 0,
            len: 0,
            queue: 0,
            sector: sector.to_le(),
        };
        let mut items = call.segments().map(|segment| {
            let flags = match segment.direction() {
                DataDirection::ToDevice => Controller::READ,
                DataDirection::FromDevice => Controller::WRITE,
                _ => return Err(EINVAL),
            };

            Ok(Item {
                address: segment.address().to_le(),
                len: u32::try_from(segment.len())?.to_le(),
                flags: flags.to_le(),
            })
        });

        match (items.next(), items.next()) {
            (None, _) => {}
            (Some(only), None) => {
                let Item {
                    address,
                    len,
                    flags,
                } = only?;

                command.address = address;
                command.len = len;
                command.flags = flags;
            }
            (Some(first), Some(second)) => {
                let (list, address) = call.scratch()?;
                let mut count = 0;

                for item in Iterator::chain([first, second].into_iter(), items) {
                    // More than the list has room for.
                    *list.get_mut(count).ok_or(EOVERFLOW)? = item?;
                    count += 1;
                }

                command.address = address.to_le();
                command.len = u32::try_from(count)?.to_le();
                command.flags = Controller::LIST.to_le();
            }
        }

        Ok(command)
    }

    fn doorbell(&mut self, tail: Tail) {
        // A device that is gone takes no notice. CAST: Widening.
        let _ = self.0 .1.doorbell(0, tail.index() as usize);
    }
}
// [end of a command]

// From here on, all is safe: the driver.

/// How many commands can be in flight.
const TAGS: u16 = 8;

type Buffer = KVec<u8>;

/// What goes with a command: a buffer to write to the disk, or one or two buffers to read into.
type Data<'a> =
    Either<Streaming<'a, Buffer, ToDevice>, Either<Streaming<'a, Buffer, FromDevice>, Pair<'a>>>;
type Pair<'a> = (
    Streaming<'a, Buffer, FromDevice>,
    Streaming<'a, Buffer, FromDevice>,
);

/// A command that was submitted: the place for its outcome. Each must be waited for.
#[derive(Debug)]
struct Request(usize);

/// What is known of a command.
enum Place<'a> {
    Free,
    InFlight,
    Over(Outcome<'a>),
}

/// How a command ended.
enum Outcome<'a> {
    Written,
    Read(StreamingBox<'a, Buffer, FromDevice>),
    ReadTwo(
        StreamingBox<'a, Buffer, FromDevice>,
        StreamingBox<'a, Buffer, FromDevice>,
    ),
    Failed,
}

/// What the context that reaps needs.
struct Back<'a> {
    done: Completions<'a, Done>,
    completer: Completer<'a, Io, (Data<'a>, Private<usize>)>,
}

/// What the device may access.
#[pin_data]
struct Queues<'a> {
    #[pin]
    submitter: Mutex<Submitter<'a, Io, (Data<'a>, Private<usize>)>>,
    #[pin]
    back: Mutex<Back<'a>>,
    /// Taken after the other locks.
    #[pin]
    places: Mutex<[Place<'a>; TAGS as usize]>,
}

/// The interrupt handler: an interrupt only says that it is worth looking.
struct IrqHandler(Arc<WaitQueue>);

impl irq::Handler for IrqHandler {
    fn handle(&self) -> irq::IrqReturn {
        self.0.wake_all();
        irq::IrqReturn::Handled
    }
}

struct Disk<'a> {
    dma: Mapper<'a>,
    queues: Session<'a, Queues<'a>>,
    waiters: Arc<WaitQueue>,
}

impl<'a> Disk<'a> {
    // [start of bringing up]
    fn bring_up(
        dev: &Device<Core<'a>>,
        stopper: ControllerStopper,
        registers: Registers,
    ) -> Result<Self> {
        let dma = Mapper::get(dev.bound())?;
        let lists = Pool::new(dev, c"lists")?;

        // Room for the completions of all commands that can be in flight, and for some more that
        // the device isn't told of at once.
        let mut done = Completions::new(dma, Done(registers.clone()), 32)?;
        let port = done.port(0, TAGS)?;
        let Commands {
            submitter,
            completer,
        } = Commands::new(dma, Io(registers), port, Some(lists))?;
        let back = Back { done, completer };
        let places = [const { Place::Free }; TAGS as usize];

        let disk = Self {
            dma,
            queues: Session::new(
                dev,
                stopper,
                pin_init!(Queues {
                    submitter <- new_mutex!(submitter),
                    back <- new_mutex!(back),
                    places <- new_mutex!(places),
                }),
            )?,
            waiters: Arc::pin_init(new_wait_queue!("rust_dma_queue"), GFP_KERNEL)?,
        };

        disk.start()?;
        Ok(disk)
    }

    /// Starts the device, at first and after a stop.
    fn start(&self) -> Result {
        // The device is disarmed here, and then may do DMA.
        self.queues.start()?;

        let mut submitter = self.queues.submitter.lock();
        let mut back = self.queues.back.lock();
        let mut places = self.queues.places.lock();
        let Back { done, completer } = &mut *back;

        // It is told where its queues are, the completion queue first.
        done.start()?;

        // What was in flight when it was stopped has failed.
        submitter.start(completer, |_, (_, place)| {
            places[place] = Place::Over(Outcome::Failed);
        })
    }
    // [end of bringing up]

    // [start of submitting]
    /// Lets the device carry out commands, and returns at once. Gives the request for each to
    /// `submitted`.
    fn submit(
        &self,
        commands: impl IntoIterator<Item = (u64, Data<'a>)>,
        mut submitted: impl FnMut(Request) -> Result,
    ) -> Result {
        let mut submitter = self.queues.submitter.lock();
        let mut places = self.queues.places.lock();

        let all = commands.into_iter().try_for_each(|(sector, data)| {
            // Its number goes along, and comes back with the data.
            let place = places.iter().position(|place| matches!(place, Place::Free));
            let place = place.ok_or(EBUSY)?;

            // If that fails, for instance since all tags are in flight, the error has the data.
            submitter.submit((data, Private(place)), sector)?;
            places[place] = Place::InFlight;
            submitted(Request(place))
        });

        // One doorbell for all that was submitted, even if a later command wasn't.
        submitter.kick()?;
        all
    }
    // [end of submitting]

    // [start of completing]
    /// Looks which commands are done.
    fn poll(&self) -> u32 {
        let mut back = self.queues.back.lock();
        let mut places = self.queues.places.lock();
        let Back { done, completer } = &mut *back;

        done.reap(64, |seen| {
            // A device that repeats itself, or makes up a tag, is counted by `completer.strays()`.
            let Ok(completed) = completer.complete(seen) else {
                return;
            };
            let has_failed = completed.entry.validate(|entry| Ok(entry.has_failed()));
            let (data, place) = completed.payload;

            let outcome = match data {
                _ if has_failed != Ok(false) => Outcome::Failed,
                Either::First(_) => Outcome::Written,
                // As many bytes as the device has reported, and never more than there are.
                Either::Second(Either::First(read)) => Outcome::Read(read),
                Either::Second(Either::Second((first, second))) => Outcome::ReadTwo(first, second),
            };

            places[place] = Place::Over(outcome);
        })
    }
    // [end of completing]

    // [start of waiting]
    /// Waits for a command. If that fails, the error has the request, to be waited for again.
    fn wait(&self, request: Request, timeout: Delta) -> Result<Outcome<'a>, ErrorWith<Request>> {
        let found = self.queues.wait_until(&self.waiters, timeout, || {
            self.poll();

            {
                let place = &mut self.queues.places.lock()[request.0];

                match replace(place, Place::Free) {
                    Place::Over(outcome) => return Some(Ok(outcome)),
                    other => *place = other,
                }
            }

            // Nothing more comes from a device that was stopped.
            let back = self.queues.back.lock();

            back.completer.is_stopped().then_some(Err(ESHUTDOWN))
        });

        // After a time-out the command is still in flight, and its data are the queue's.
        found.unwrap_or(Err(ETIMEDOUT)).map_err(|error| ErrorWith {
            error,
            value: request,
        })
    }
    // [end of waiting]

    /// Makes room to read into.
    fn room(&self, len: usize) -> Result<Streaming<'a, Buffer, FromDevice>> {
        Ok(Streaming::map(self.dma, zeros(len)?)?)
    }
}

fn zeros(len: usize) -> Result<Buffer> {
    // So that a buffer is alone in its cache lines.
    let mut vec = KVec::with_capacity(len.max(256), GFP_KERNEL)?;

    vec.resize(len, 0, GFP_KERNEL)?;
    Ok(vec)
}

#[kunit_tests(sample_rust_dma_queue)]
mod tests {
    use super::*;

    const LONG: Delta = Delta::from_secs(10);

    /// Runs a test on each kind of bus, with a device that takes its time, and memory that is
    /// weakly ordered.
    fn with_disk(body: fn(&Disk<'_>, &Arc<sim::Sim>, &Controller) -> Result) -> Result {
        let script = Script::new(Model::NonCoherent)
            .fate(Fate::within(4))
            .weak_order(true);

        sim::run_on_each(script, |pdev, sim| {
            let device = Controller::new(sim)?;
            let disk = Disk::bring_up(
                pdev.as_ref(),
                ControllerStopper(device.clone()),
                Registers(pdev.as_ref().into(), device.clone()),
            )?;

            body(&disk, sim, &device)
        })
    }

    /// Whether these are the bytes of a sector, from a place on.
    fn are_of(sector: u64, at: usize, bytes: &[u8]) -> bool {
        bytes
            .iter()
            .enumerate()
            .all(|(i, byte)| *byte == Controller::byte(sector, at + i))
    }

    /// Commands complete in any order; each is what it was.
    #[test]
    fn moves() -> Result {
        with_disk(|disk, sim, device| {
            let waker = Arc::new(IrqHandler(disk.waiters.clone()), GFP_KERNEL)?;
            let _connection = sim.connect(waker, Clock::Timer)?;

            for turn in 0..20_u64 {
                let mut requests = KVec::new();
                let write = Streaming::map(disk.dma, zeros(40)?)?;
                let pair = (disk.room(30)?, disk.room(50)?);

                disk.submit(
                    [
                        (turn, Either::First(write)),
                        (turn + 1, Either::Second(Either::First(disk.room(100)?))),
                        (turn + 2, Either::Second(Either::Second(pair))),
                    ],
                    |request| Ok(requests.push(request, GFP_KERNEL)?),
                )?;

                let mut next = || requests.pop().ok_or(EIO);

                // The last one first.
                let Outcome::ReadTwo(first, second) = disk.wait(next()?, LONG)? else {
                    return Err(EIO);
                };
                ensure!(first.bytes().len() == 30 && are_of(turn + 2, 0, first.bytes()));
                ensure!(second.bytes().len() == 50 && are_of(turn + 2, 30, second.bytes()));

                let Outcome::Read(read) = disk.wait(next()?, LONG)? else {
                    return Err(EIO);
                };
                ensure!(read.bytes().len() == 100 && are_of(turn + 1, 0, read.bytes()));

                ensure!(matches!(disk.wait(next()?, LONG)?, Outcome::Written));
                ensure!(device
                    .next_read()
                    .is_some_and(|read| read.bytes == [0; 40][..]));
            }

            Ok(())
        })
    }

    /// A command that fails, and one that is given up, whose buffer comes back later.
    #[test]
    fn fails() -> Result {
        with_disk(|disk, sim, device| {
            let mut requests = KVec::new();

            device.then(Fate::after(30))?;
            device.then(Fate::after(0).bad())?;
            disk.submit(
                [
                    (1, Either::Second(Either::First(disk.room(100)?))),
                    (2, Either::Second(Either::First(disk.room(100)?))),
                ],
                |request| Ok(requests.push(request, GFP_KERNEL)?),
            )?;

            let mut next = || requests.pop().ok_or(EIO);

            ensure!(matches!(disk.wait(next()?, LONG)?, Outcome::Failed));

            let Err(late) = disk.wait(next()?, Delta::from_millis(1)) else {
                return Err(EIO);
            };

            ensure!(late.error == ETIMEDOUT);
            sim.advance(40);

            let Outcome::Read(read) = disk.wait(late.value, LONG)? else {
                return Err(EIO);
            };

            ensure!(are_of(1, 0, read.bytes()));
            Ok(())
        })
    }

    /// A stop ends what is in flight; then it goes on.
    #[test]
    fn stops() -> Result {
        with_disk(|disk, _, device| {
            let mut requests = KVec::new();

            device.then(Fate::never())?;
            disk.submit(
                [(1, Either::Second(Either::First(disk.room(100)?)))],
                |request| Ok(requests.push(request, GFP_KERNEL)?),
            )?;
            ensure!(disk.queues.stop() == StopOutcome::Stopped);

            let Err(stopped) = disk.wait(requests.pop().ok_or(EIO)?, LONG) else {
                return Err(EIO);
            };

            ensure!(stopped.error == ESHUTDOWN);
            disk.start()?;
            ensure!(matches!(disk.wait(stopped.value, LONG)?, Outcome::Failed));
            Ok(())
        })
    }

    /// The outcome of a command is there for who waits for it late, though its tag was used again
    /// since. When all places are taken, or all tags in flight, more is refused, and the others
    /// were submitted.
    #[test]
    fn waits_late() -> Result {
        with_disk(|disk, sim, _| {
            let waker = Arc::new(IrqHandler(disk.waiters.clone()), GFP_KERNEL)?;
            let _connection = sim.connect(waker, Clock::Timer)?;
            let mut requests = KVec::new();
            let read =
                |sector| Ok::<_, Error>((sector, Either::Second(Either::First(disk.room(64)?))));
            let submit = |sector, requests: &mut KVec<Request>| {
                disk.submit([read(sector)?], |request| {
                    Ok(requests.push(request, GFP_KERNEL)?)
                })
            };
            let wait = |request, sector| match disk.wait(request, LONG)? {
                Outcome::Read(read) => Ok(are_of(sector, 0, read.bytes())),
                _ => Err(EIO),
            };

            submit(1, &mut requests)?;

            let late = requests.pop().ok_or(EIO)?;

            for sector in 2..2 + 3 * u64::from(TAGS) {
                submit(sector, &mut requests)?;
                ensure!(wait(requests.pop().ok_or(EIO)?, sector)?);
            }

            // The first one has its place.
            let mut commands = KVec::new();

            for sector in 0..u64::from(TAGS) {
                commands.push(read(sector)?, GFP_KERNEL)?;
            }

            let all = disk.submit(commands, |request| Ok(requests.push(request, GFP_KERNEL)?));

            ensure!(all == Err(EBUSY) && requests.len() == usize::from(TAGS) - 1);

            for (sector, request) in requests.into_iter().enumerate() {
                // CAST: Widening.
                ensure!(wait(request, sector as u64)?);
            }

            ensure!(wait(late, 1)?);
            Ok(())
        })
    }
}
