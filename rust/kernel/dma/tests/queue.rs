// SPDX-License-Identifier: GPL-2.0

//! Tests of queues, with a device that the test plays: on any bus.
//!
//! The test writes completions where the device would, by the CPU. Nobody accesses what commands
//! name.

use super::{
    ensure,
    fixture::{
        on_each_bus,
        open,
        prove, //
    }, //
};
#[cfg(CONFIG_64BIT)]
use super::{
    fixture::with_platform_device,
    ring_parallel::{
        has_cpus,
        on_cpus,
        Random,
        Together, //
    }, //
};
#[cfg(CONFIG_64BIT)]
use crate::sync::atomic::Acquire;
use crate::{
    device::{
        Bound,
        Core,
        Device, //
    },
    dma::{
        quarantined,
        queue::{
            Call,
            Commands,
            Completed,
            CompletionQueue,
            Completions,
            Either,
            Entry,
            Head,
            Payload,
            Private,
            QueueMemory,
            QueuePlace,
            Stray,
            Submission,
            Tail,
            Ticket,
            Turn, //
        },
        Bidirectional,
        DataDirection,
        FromDevice,
        Mapper,
        Pool,
        PoolEntry,
        ScatterMap,
        Streaming,
        ToDevice,
        Untrusted, //
    },
    faux,
    platform,
    prelude::*,
    sync::{
        aref::ARef,
        atomic::{
            Atomic,
            Relaxed,
            Release, //
        },
        Arc, //
    }, //
};

/// The size of a buffer.
const BUF: usize = 256;

/// A completion, as mlx5 has it: an owner bit, which is 0 in the first turn, and an invalid opcode
/// in entries that were never written.
#[derive(Clone, Copy, FromBytes, IntoBytes)]
#[repr(C)]
struct Cqe {
    tag: u32,
    moved: u32,
    queue: u16,
    event: u16,
    own: u32,
}

impl Cqe {
    const INVALID: u32 = 0xf;
}

// SAFETY: By the numbers of the contract:
// 1. `own` is written last.
// 2. The owner bit is 0 in the first turn, and changes with each; blank entries are invalid.
// 3. The tests write tags for commands that are done, and mark events.
// 4. Nobody accesses what commands name.
unsafe impl Entry for Cqe {
    const WORD: usize = 12;
    const BLANK: u8 = 0xff;

    fn is_new(word: u32, turn: Turn) -> bool {
        word >> 28 != Self::INVALID && (word & 1 == 0) == turn.phase()
    }

    fn queue(&self) -> Untrusted<u16> {
        Untrusted::new(self.queue)
    }

    fn tag(&self) -> Option<Untrusted<u32>> {
        (self.event == 0).then(|| Untrusted::new(self.tag))
    }

    fn moved(&self) -> Option<Untrusted<usize>> {
        // CAST: Widening.
        (self.moved != u32::MAX).then(|| Untrusted::new(self.moved as usize))
    }
}

/// The registers of the device.
struct Registers {
    dev: ARef<Device>,
    /// How often a queue was told, and how often that is to be refused.
    starts: Atomic<u32>,
    refusals: Atomic<u32>,
    tail: Atomic<u32>,
    head: Atomic<u32>,
}

impl Registers {
    fn new(dev: &Device) -> Result<Arc<Self>> {
        Ok(Arc::new(
            Self {
                dev: dev.into(),
                starts: Atomic::new(0),
                refusals: Atomic::new(0),
                tail: Atomic::new(0),
                head: Atomic::new(0),
            },
            GFP_KERNEL,
        )?)
    }

    fn start(&self) -> Result {
        self.starts.store(self.starts.load(Relaxed) + 1, Relaxed);

        match self.refusals.load(Relaxed).checked_sub(1) {
            Some(left) => {
                self.refusals.store(left, Relaxed);
                Err(EIO)
            }
            None => Ok(()),
        }
    }
}

struct Completes(Arc<Registers>, u16);

// SAFETY: By the numbers of the contract: 1. There is one device. 2., 3. The tests write entries in
// order, where one is free. 4. The registers are stored with release semantics. 5. It doesn't
// matter.
unsafe impl CompletionQueue for Completes {
    type Entry = Cqe;

    fn device(&self) -> &Device {
        &self.0.dev
    }

    fn number(&self) -> u16 {
        self.1
    }

    fn start(&mut self, _queue: QueueMemory<'_>) -> Result {
        self.0.start()
    }

    fn consumed(&mut self, head: Head) {
        self.0.head.store(head.index(), Release);
    }
}

/// A command, as the device reads it.
#[derive(Clone, Copy, FromBytes, IntoBytes)]
#[repr(C)]
struct Sqe {
    address: u64,
    list: u64,
    len: u32,
    segments: u32,
    tag: u32,
    directions: u32,
}

/// What a command is to be.
#[derive(Clone, Copy)]
enum Say<'a> {
    Plain,
    /// With the scratch block, to which this is written.
    List(u64),
    /// Of another queue.
    Place(QueuePlace<'a, Cqe>),
    OtherPlace(QueuePlace<'a, Sqe>),
    /// Which one it is.
    #[cfg(CONFIG_64BIT)]
    Number(u32),
    /// What the device can't do.
    Refuse,
}

struct Submits<'a, const TAG_BITS: u32>(Arc<Registers>, u16, core::marker::PhantomData<&'a ()>);

impl<const TAG_BITS: u32> Submits<'_, TAG_BITS> {
    fn new(registers: Arc<Registers>) -> Self {
        Self::numbered(registers, 0)
    }

    fn numbered(registers: Arc<Registers>, number: u16) -> Self {
        Self(registers, number, core::marker::PhantomData)
    }
}

// SAFETY: By the numbers of the contract: 1. There is one device. 2. It accesses nothing. 3.
// `describe` keeps nothing. 4., 5. The tests play that. 6. The registers are stored with release
// semantics. 7. It doesn't matter.
unsafe impl<'q, const TAG_BITS: u32> Submission for Submits<'q, TAG_BITS> {
    type Entry = Sqe;
    type Completion = Cqe;
    type Command = Say<'q>;
    type Scratch = [u64; 8];
    const TAG_BITS: u32 = TAG_BITS;

    fn device(&self) -> &Device {
        &self.0.dev
    }

    fn number(&self) -> u16 {
        self.1
    }

    fn start(&mut self, _queue: QueueMemory<'_>) -> Result {
        self.0.start()
    }

    fn describe<'a, P: Payload<'a>>(
        &self,
        say: &Say<'q>,
        mut call: Call<'_, 'a, P, [u64; 8]>,
    ) -> Result<Sqe> {
        let mut sqe = Sqe {
            address: 0,
            list: 0,
            len: 0,
            segments: 0,
            tag: call.tag(),
            directions: 0,
        };

        for segment in call.segments() {
            sqe.address = segment.address();
            // CAST: A buffer of the tests.
            sqe.len += segment.len() as u32;
            sqe.segments += 1;
            sqe.directions = (sqe.directions << 8)
                | match segment.direction() {
                    DataDirection::ToDevice => 1,
                    DataDirection::FromDevice => 2,
                    DataDirection::Bidirectional => 3,
                    DataDirection::None => 4,
                };
        }

        // CAST: Widening.
        if sqe.len as usize != call.len() {
            return Err(EOVERFLOW);
        }

        match say {
            Say::Plain => {}
            Say::List(word) => {
                let (list, address) = call.scratch()?;

                sqe.list = address;
                // What was there before is still there.
                sqe.address = list[0];
                list[0] = *word;
            }
            Say::Place(place) => sqe.list = call.place(place)?,
            Say::OtherPlace(place) => sqe.list = call.place(place)?,
            #[cfg(CONFIG_64BIT)]
            Say::Number(number) => sqe.list = (*number).into(),
            Say::Refuse => return Err(EDOM),
        }

        Ok(sqe)
    }

    fn doorbell(&mut self, tail: Tail) {
        self.0.tail.store(tail.index(), Release);
    }
}

type Buf = KVec<u8>;
type Read<'a> = Streaming<'a, Buf, FromDevice>;

fn buf(len: usize) -> Result<Buf> {
    let mut vec = KVec::with_capacity(len.max(BUF), GFP_KERNEL)?;

    vec.resize(len, 0, GFP_KERNEL)?;
    Ok(vec)
}

/// Maps a buffer for the device to write.
fn read<'a>(dma: Mapper<'a>, len: usize) -> Result<Read<'a>> {
    Ok(Streaming::map(dma, buf(len)?)?)
}

/// The device: where it writes next.
struct Player {
    table: core::ptr::NonNull<Cqe>,
    len: u32,
    next: u32,
}

impl Player {
    fn new(done: &Completions<'_, Completes>) -> Self {
        Self {
            table: done.table(),
            len: done.len(),
            next: 0,
        }
    }

    /// Writes a completion.
    fn write(&mut self, queue: u16, tag: u32, moved: u32, event: bool) {
        let turn = self.next / self.len;
        let at = self.next % self.len;

        // CAST: Widening.
        // SAFETY: In the queue, whose memory is there as long as the test plays. All who access the
        // last word at the same time do so by such accesses.
        unsafe {
            let cqe = self.table.add(at as usize).as_ptr();

            (&raw mut (*cqe).tag).write_volatile(tag);
            (&raw mut (*cqe).moved).write_volatile(moved);
            (&raw mut (*cqe).queue).write_volatile(queue);
            (&raw mut (*cqe).event).write_volatile(event.into());
            Atomic::from_ptr(&raw mut (*cqe).own).store(turn & 1, Release);
        }
        self.next += 1;
    }

    /// Whether an entry is free, if all before that index are.
    #[cfg(CONFIG_64BIT)]
    fn has_room(&self, head: u32) -> bool {
        (self.next + 1) % self.len != head
    }

    fn done(&mut self, tag: u32, moved: u32) {
        self.write(0, tag, moved, false);
    }
}

/// What is tested: queues on a device that runs.
struct Rig<'a, const TAG_BITS: u32, P: Payload<'a>> {
    dma: Mapper<'a>,
    registers: Arc<Registers>,
    done: Completions<'a, Completes>,
    io: Commands<'a, Submits<'a, TAG_BITS>, P>,
    device: Player,
}

impl<'a, const TAG_BITS: u32, P: Payload<'a>> Rig<'a, TAG_BITS, P> {
    /// Makes queues, and starts them: `tags` commands in flight, and a completion queue of `len`
    /// entries.
    fn new(dma: Mapper<'a>, len: u32, tags: u16) -> Result<Self> {
        Self::with_scratch(dma, len, tags, None)
    }

    fn with_scratch(
        dma: Mapper<'a>,
        len: u32,
        tags: u16,
        scratch: Option<&'a Pool<'a, [u64; 8]>>,
    ) -> Result<Self> {
        let registers = Registers::new(dma.device())?;
        let mut done = Completions::new(dma, Completes(registers.clone(), 0), len)?;
        let port = done.port(0, tags)?;
        let mut io = Commands::new(dma, Submits::new(registers.clone()), port, scratch)?;

        done.start()?;
        io.start(|_, _| {})?;

        Ok(Self {
            dma,
            device: Player::new(&done),
            registers,
            done,
            io,
        })
    }

    /// Submits a command; returns its tag, as the device finds it, and its ticket.
    fn submit(&mut self, payload: P, say: Say<'a>) -> Result<(u32, Ticket)> {
        let ticket = self
            .io
            .submitter
            .submit(payload, say)
            .map_err(|e| e.error)?;

        self.io.submitter.kick()?;
        Ok((self.last().tag, ticket))
    }

    /// Returns the command that the device was told of last.
    fn last(&self) -> Sqe {
        let len = self.io.submitter.len();

        self.entry((self.registers.tail.load(Relaxed) + len - 1) % len)
    }

    /// Returns an entry, by its index.
    fn entry(&self, at: u32) -> Sqe {
        // CAST: Widening.
        // SAFETY: In the queue, whose memory is there as long as `self`.
        unsafe {
            self.io
                .submitter
                .table()
                .add(at as usize)
                .as_ptr()
                .read_volatile()
        }
    }

    /// Reaps one entry, which completes a command.
    fn complete(&mut self) -> Result<Completed<'a, P, Cqe>> {
        let mut found = Err(ENOENT);

        self.done.reap(1, |seen| {
            found = self.io.completer.complete(seen).map_err(|_| EBADMSG);
        });
        found
    }

    /// Says that the device has stopped, as it has, and starts it again.
    fn restart(&mut self, cancelled: impl FnMut(Ticket, P::Back)) -> Result {
        self.stop();
        open(self.dma.bound())?;
        self.done.start()?;
        self.device.next = 0;
        self.io.start(cancelled)
    }

    fn stop(&self) {
        // SAFETY: The device (the test) accesses nothing.
        unsafe { prove(self.dma) };
    }
}

/// Runs a test with queues on each kind of bus. The device has stopped when they go.
fn on_each_rig<const TAG_BITS: u32>(
    len: u32,
    tags: u16,
    mut body: impl for<'a> FnMut(&mut Rig<'a, TAG_BITS, Read<'a>>) -> Result,
) -> Result {
    on_each_bus(|pdev| {
        let dma = open(pdev.as_ref().bound())?;
        let mut rig = Rig::new(dma, len, tags)?;
        let outcome = body(&mut rig);

        rig.stop();
        outcome
    })
}

#[kunit_tests(rust_dma_queue)]
mod cases {
    use super::*;

    /// Commands complete in any order, each with its payload, and as many bytes as the device says.
    #[test]
    fn any_order() -> Result {
        on_each_rig::<16>(32, 8, |rig| {
            let mut commands = KVec::new();

            for i in 0..8 {
                let buf = read(rig.dma, 100 + i)?;
                let (tag, ticket) = rig.submit(buf, Say::Plain)?;
                let last = rig.last();

                // CAST: Widening.
                ensure!(last.len as usize == 100 + i && last.segments == 1 && last.address != 0);
                ensure!(last.directions == 2);
                commands.push((tag, ticket, 100 + i), GFP_KERNEL)?;
            }

            ensure!(rig.io.completer.in_flight() == 8 && rig.io.submitter.refresh() == 0);

            for at in [3, 7, 0, 6, 1, 5, 4, 2] {
                let (tag, ticket, len) = commands[at];

                // CAST: Small.
                rig.device.done(tag, at as u32);

                let done = rig.complete()?;

                ensure!(done.ticket == ticket);
                ensure!(done.payload.bytes().len() == at);
                ensure!(done.payload.unmap().len() == len);
                ensure!(done.entry.validate(|entry| Ok(entry.tag))? == tag);
            }

            ensure!(rig.io.completer.in_flight() == 0 && rig.io.submitter.refresh() == 8);
            ensure!(rig.complete().err() == Some(ENOENT));
            ensure!(rig.io.completer.strays() == 0 && rig.io.completer.malformed() == 0);
            Ok(())
        })
    }

    /// Of a device that reports no length, all bytes count; of one that reports too many, none.
    #[test]
    fn lengths() -> Result {
        on_each_rig::<16>(8, 4, |rig| {
            for (moved, counts) in [(100, 100), (0, 0), (u32::MAX, 100), (101, 0), (1 << 31, 0)] {
                let buf = read(rig.dma, 100)?;
                let (tag, _) = rig.submit(buf, Say::Plain)?;

                rig.device.done(tag, moved);
                ensure!(rig.complete()?.payload.bytes().len() == counts);
            }

            ensure!(rig.io.completer.malformed() == 2);
            Ok(())
        })
    }

    /// When all tags are in flight, the payload comes back as it was. Slots are used in turn.
    #[test]
    fn tags_run_out() -> Result {
        on_each_rig::<16>(16, 3, |rig| {
            let mut tags = KVec::new();

            for i in 0..3 {
                let buf = read(rig.dma, 10)?;
                let (tag, ticket) = rig.submit(buf, Say::Plain)?;

                ensure!(ticket.index() == i);
                tags.push(tag, GFP_KERNEL)?;
            }

            let refused = rig.io.submitter.submit(read(rig.dma, 77)?, Say::Plain);
            let Err(e) = refused else {
                return Err(EINVAL);
            };

            ensure!(e.error == EBUSY);
            ensure!(e.value.take_back().is_ok_and(|buf| buf.unmap().len() == 77));

            // What is free first is used first, for as many turns of the list as there are.
            for turn in 0..40 {
                let (done, other) = (tags[0], tags[1]);

                rig.device.done(other, 10);
                rig.device.done(done, 10);

                let second = rig.complete()?.ticket;
                let first = rig.complete()?.ticket;

                for expected in [second, first] {
                    let buf = read(rig.dma, 10)?;
                    let (tag, ticket) = rig.submit(buf, Say::Plain)?;

                    ensure!(ticket.index() == expected.index() && ticket != expected);
                    tags.push(tag, GFP_KERNEL)?;
                }

                tags.retain(|tag| ![done, other].contains(tag));
                ensure!(tags.len() == 3 && turn < 40);
                ensure!(rig.io.submitter.refresh() == 0);
            }

            Ok(())
        })
    }

    /// All generations of a slot are used before one comes again; an entry that is repeated
    /// completes nothing until then.
    #[test]
    fn generations() -> Result {
        // Two slots, and two bits that are left.
        on_each_rig::<3>(16, 2, |rig| {
            let mut tags = KVec::new();

            for _ in 0..24 {
                let buf = read(rig.dma, 10)?;
                let (tag, _) = rig.submit(buf, Say::Plain)?;

                ensure!(tag < 8);

                // All that the device has ever said, and this command wasn't meant.
                for old in tags.iter().rev().take(7) {
                    rig.device.done(*old, 10);
                    ensure!(rig.complete().err() == Some(EBADMSG));
                }

                rig.device.done(tag, 10);
                rig.complete()?;
                tags.push(tag, GFP_KERNEL)?;
            }

            for (i, tag) in tags.iter().enumerate() {
                ensure!(i < 8 || tags[i - 8] == *tag);
                ensure!(tags[..i].iter().rev().take(7).all(|old| old != tag));
            }

            ensure!(rig.io.completer.strays() == 7 * 24 - 28);
            Ok(())
        })
    }

    /// Tags that no command in flight has are counted, and nothing else comes of them.
    #[test]
    fn unknown_tags() -> Result {
        on_each_rig::<8>(16, 5, |rig| {
            let buf = read(rig.dma, 10)?;
            let (tag, ticket) = rig.submit(buf, Say::Plain)?;
            let mut strays = 0;

            // Too many bits, other slots, other generations; and what stands for no tag.
            for forged in [
                tag | 1 << 8,
                tag | 1 << 31,
                tag ^ 1,
                tag ^ 7,
                tag ^ 8,
                tag ^ 0x80,
                u32::MAX,
                u32::MAX - 7,
                0xff,
            ] {
                if forged == tag {
                    continue;
                }

                rig.device.done(forged, 10);

                let mut outcome = None;

                rig.done.reap(8, |seen| {
                    outcome = Some(match rig.io.completer.complete(seen) {
                        Ok(_) => Err(EINVAL),
                        Err(Stray::Unknown(entry)) => entry.validate(|entry| Ok(entry.tag)),
                        Err(_) => Err(EIO),
                    });
                });
                ensure!(outcome == Some(Ok(forged)));
                strays += 1;
            }

            ensure!(rig.io.completer.strays() == strays);
            rig.device.done(tag, 10);
            ensure!(rig.complete()?.ticket == ticket);
            // Once.
            rig.device.done(tag, 10);
            ensure!(rig.complete().err() == Some(EBADMSG));
            ensure!(rig.io.completer.strays() == strays + 1);
            Ok(())
        })
    }

    /// Two submission queues complete in one completion queue, and don't take each other's.
    #[test]
    fn shared() -> Result {
        on_each_bus(|pdev| {
            let dma = open(pdev.as_ref().bound())?;
            let registers = Registers::new(dma.device())?;
            let mut done = Completions::new(dma, Completes(registers.clone(), 0), 16)?;
            let mut other = Completions::new(dma, Completes(registers.clone(), 0), 16)?;
            let ports = [done.port(3, 4)?, done.port(9, 4)?, other.port(3, 4)?];
            let mut numbers = [3, 9, 3].into_iter();
            let [three, nine, strange] = ports.map(|port| {
                Commands::<Submits<'_, 16>, Read<'_>>::new(
                    dma,
                    Submits::numbered(registers.clone(), numbers.next().unwrap_or(0)),
                    port,
                    None,
                )
            });
            let (mut three, mut nine, mut strange) = (three?, nine?, strange?);

            done.start()?;
            other.start()?;
            three.start(|_, _| {})?;
            nine.start(|_, _| {})?;
            strange.start(|_, _| {})?;

            let mut device = Player::new(&done);
            let mut tags = KVec::new();

            // The tags are the same in all of them.
            for io in [&mut three, &mut nine, &mut strange] {
                io.submitter
                    .submit(read(dma, 10)?, Say::Plain)
                    .map_err(|e| e.error)?;
                io.submitter.kick()?;

                // SAFETY: In the queue, of which this is the first entry.
                let sqe = unsafe { io.submitter.table().as_ptr().read_volatile() };

                tags.push(sqe.tag, GFP_KERNEL)?;
            }
            ensure!(tags[0] == tags[1] && tags[1] == tags[2]);
            ensure!(three.completer.number() == 3 && nine.completer.number() == 9);

            device.write(9, tags[0], 10, false);
            device.write(7, tags[0], 10, false);
            device.write(3, tags[0], 10, true);

            let mut seen_of = KVec::new();
            let mut outcome: Result = Ok(());

            let count = done.reap(64, |seen| {
                outcome = outcome.and_then(|()| {
                    let queue = seen.queue().validate(Ok)?;

                    ensure!(seen.entry().validate(|entry| Ok(entry.queue))? == queue);

                    // Another completion queue, and then another submission queue: it comes back.
                    let Err(Stray::Other(seen)) = strange.completer.complete(seen) else {
                        return Err(EINVAL);
                    };
                    let (right, wrong) = match queue {
                        3 => (&mut three, &mut nine),
                        _ => (&mut nine, &mut three),
                    };
                    let Err(Stray::Other(seen)) = wrong.completer.complete(seen) else {
                        return Err(EINVAL);
                    };

                    let what = match (queue, right.completer.complete(seen)) {
                        (9, Ok(_)) => "done",
                        (7, Err(Stray::Other(_))) => "none",
                        (3, Err(Stray::Event(_))) => "event",
                        _ => return Err(EIO),
                    };

                    Ok(seen_of.push(what, GFP_KERNEL)?)
                });
            });

            outcome?;
            ensure!(count == 3 && seen_of[..] == ["done", "none", "event"]);
            ensure!(three.completer.strays() == 0 && nine.completer.strays() == 0);
            ensure!(three.completer.in_flight() == 1 && nine.completer.in_flight() == 0);

            // SAFETY: The device (the test) accesses nothing.
            unsafe { prove(dma) };
            Ok(())
        })
    }

    /// What can't be made is refused.
    #[test]
    fn refused() -> Result {
        on_each_bus(|pdev| {
            let dma = open(pdev.as_ref().bound())?;
            let stranger = faux::Registration::new(c"dma_test", None)?;
            let registers = Registers::new(dma.device())?;
            let stranger: &faux::Device<_> = stranger.as_ref();
            let stranger: &Device<Bound> = stranger.as_ref();
            let strange = Registers::new(stranger)?;
            let make = |len| Completions::new(dma, Completes(registers.clone(), 0), len);

            for len in [0, 1, 2, 3, 5, 6, 100, 1 << 16, u32::MAX] {
                ensure!(make(len).err() == Some(EINVAL));
            }

            let foreign = Completions::new(dma, Completes(strange.clone(), 0), 8);
            ensure!(foreign.err() == Some(EINVAL));

            let mut done = make(8)?;

            ensure!(done.len() == 8);
            // One entry is never used, and one is for what the device wasn't told of.
            ensure!(done.port(0, 7).err() == Some(EBUSY));
            ensure!(done.port(0, 0).err() == Some(EINVAL));

            let first = done.port(0, 4)?;

            ensure!(done.port(0, 1).err() == Some(EEXIST));
            ensure!(done.port(1, 3).err() == Some(EBUSY));

            let second = done.port(1, 2)?;

            ensure!(done.port(2, 1).err() == Some(EBUSY));

            let foreign = Commands::<Submits<'_, 16>, ()>::new(
                dma,
                Submits::new(strange.clone()),
                first,
                None,
            );
            ensure!(foreign.err() == Some(EINVAL));

            // Two tags need one bit; no bit for a generation is needed.
            let narrow = Commands::<Submits<'_, 1>, ()>::new(
                dma,
                Submits::numbered(registers.clone(), 1),
                second,
                None,
            )?;

            ensure!(narrow.submitter.len() == 4);

            let mut large = make(1 << 15)?;
            let (port, many) = (large.port(0, 3)?, large.port(1, (1 << 14) + 1)?);
            let narrow = Commands::<Submits<'_, 1>, ()>::new(
                dma,
                Submits::new(registers.clone()),
                port,
                None,
            );

            ensure!(narrow.err() == Some(EINVAL));

            let wide = Commands::<Submits<'_, 16>, ()>::new(
                dma,
                Submits::numbered(registers.clone(), 1),
                many,
                None,
            );

            ensure!(wide.err() == Some(EINVAL));
            Ok(())
        })
    }

    /// A command that the device can't take comes back, and so does a payload that isn't to be
    /// shown here.
    #[test]
    fn refused_commands() -> Result {
        on_each_rig::<16>(8, 2, |rig| {
            let before = rig.io.submitter.refresh();
            let back = |refused: Result<Ticket, crate::error::ErrorWith<Read<'_>>>| match refused {
                Ok(_) => Err(EINVAL),
                // It wasn't shown, so it can be taken back.
                Err(e) => Ok((e.error, e.value.take_back().is_ok())),
            };

            let buf = read(rig.dma, 10)?;
            ensure!(back(rig.io.submitter.submit(buf, Say::Refuse))? == (EDOM, true));

            // There is no pool.
            let buf = read(rig.dma, 10)?;
            ensure!(back(rig.io.submitter.submit(buf, Say::List(1)))? == (EINVAL, true));

            let buf = read(rig.dma, 10)?;
            let _ = buf.address();
            ensure!(back(rig.io.submitter.submit(buf, Say::Plain))? == (EINVAL, false));

            ensure!(rig.io.submitter.refresh() == before);
            ensure!(rig.io.completer.in_flight() == 0);
            // Nothing is to be told.
            rig.io.submitter.kick()?;
            ensure!(rig.io.submitter.doorbells() == 0);
            Ok(())
        })
    }

    /// One doorbell for a batch, on both sides; more if the ports have reserved all.
    #[test]
    fn doorbells() -> Result {
        // There is room for four entries that the device isn't told of, or for one.
        for (len, per_doorbell) in [(16, 4), (8, 1)] {
            let tags = len as u16 - 1 - per_doorbell as u16;

            on_each_rig::<16>(len, tags, |rig| {
                let mut tags_of = KVec::new();

                for turn in 1..10 {
                    tags_of.clear();

                    for _ in 0..tags {
                        rig.io
                            .submitter
                            .submit(read(rig.dma, 10)?, Say::Plain)
                            .map_err(|e| e.error)?;
                        tags_of.push(0, GFP_KERNEL)?;
                    }
                    ensure!(rig.io.submitter.doorbells() == turn - 1);
                    rig.io.submitter.kick()?;
                    rig.io.submitter.kick()?;
                    ensure!(rig.io.submitter.doorbells() == turn);

                    let queue = rig.io.submitter.len();
                    let end = rig.registers.tail.load(Relaxed);

                    for i in 0..u32::from(tags) {
                        let at = (end + queue - u32::from(tags) + i) % queue;

                        // CAST: Widening.
                        // SAFETY: In the queue, whose memory is there as long as the rig.
                        let sqe = unsafe {
                            rig.io
                                .submitter
                                .table()
                                .add(at as usize)
                                .as_ptr()
                                .read_volatile()
                        };

                        rig.device.done(sqe.tag, 10);
                    }

                    let before = rig.done.doorbells();
                    let mut at = (rig.device.next - u32::from(tags)) % len;
                    let mut most = 0;

                    // Up to the budget, and the rest.
                    for budget in [2, 64] {
                        rig.done.reap(budget, |seen| {
                            // How many the device doesn't know of.
                            at += 1;
                            most = most.max((at + len - rig.registers.head.load(Relaxed)) % len);
                            let _ = rig.io.completer.complete(seen);
                        });
                    }

                    ensure!(u64::from(most) <= per_doorbell);
                    ensure!(rig.io.completer.in_flight() == 0);
                    ensure!(rig.device.next % len == rig.registers.head.load(Relaxed));

                    let rest = u64::from(tags) - 2;
                    let expected = 2_u64.div_ceil(per_doorbell) + rest.div_ceil(per_doorbell);

                    ensure!(rig.done.doorbells() - before == expected);
                }

                Ok(())
            })?;
        }

        Ok(())
    }

    /// After a stop, what was in flight comes back, and what the device had completed before can
    /// still be reaped. Then all begins anew, but for the generations.
    #[test]
    fn stops_and_starts() -> Result {
        on_each_rig::<16>(16, 4, |rig| {
            let mut old = KVec::new();

            for i in 0..4 {
                let buf = read(rig.dma, 10 + i)?;

                old.push(rig.submit(buf, Say::Plain)?, GFP_KERNEL)?;
            }

            // The device runs: nothing can be taken out, and no queue be told once more.
            ensure!(rig.io.start(|_, _| {}).err() == Some(EBUSY));
            ensure!(rig.io.drain(|_, _| {}).err() == Some(EBUSY));
            ensure!(rig.done.start().err() == Some(EBUSY));
            ensure!(!rig.done.is_stopped() && !rig.io.completer.is_stopped());

            rig.device.done(old[2].0, 5);
            rig.device.done(old[0].0, 5);
            rig.stop();
            ensure!(rig.done.is_stopped() && rig.io.completer.is_stopped());

            // It isn't told what was reaped.
            let told = rig.done.doorbells();

            ensure!(rig.complete()?.ticket == old[2].1);
            ensure!(rig.done.doorbells() == told);

            // It doesn't run.
            ensure!(rig.done.start().err() == Some(ESHUTDOWN));
            ensure!(rig.io.start(|_, _| {}).err() == Some(ESHUTDOWN));

            let buf = read(rig.dma, 99)?;
            ensure!(rig.submit(buf, Say::Plain).err() == Some(ESHUTDOWN));

            // All but the one that is done, with the one that the device wasn't told of.
            let mut back = KVec::new();

            rig.restart(|ticket, payload| {
                let none = payload.bytes().is_empty();

                let _ = back.push((ticket, none, payload.unmap().len()), GFP_KERNEL);
            })?;
            ensure!(back.len() == 4 && back.iter().all(|(_, none, _)| *none));

            for (at, len) in [(0, 10), (1, 11), (3, 13)] {
                ensure!(back.iter().any(|one| one.0 == old[at].1 && one.2 == len));
            }
            ensure!(back.iter().any(|one| one.2 == 99));
            ensure!(!rig.done.is_stopped() && !rig.io.completer.is_stopped());
            ensure!(rig.complete().err() == Some(ENOENT));

            // The device says what it said before the stop.
            for _ in 0..4 {
                let buf = read(rig.dma, 10)?;

                rig.submit(buf, Say::Plain)?;
            }
            ensure!(rig.io.submitter.refresh() == 0);
            for (tag, _) in &old {
                rig.device.done(*tag, 10);
                ensure!(rig.complete().err() == Some(EBADMSG));
            }

            // And without a start.
            rig.stop();

            let mut count = 0;

            rig.io.drain(|_, _| count += 1)?;
            ensure!(count == 4 && rig.io.completer.in_flight() == 0);
            rig.io.drain(|_, _| count += 1)?;
            ensure!(count == 4);

            let buf = read(rig.dma, 10)?;
            ensure!(rig.submit(buf, Say::Plain).err() == Some(ESHUTDOWN));
            Ok(())
        })
    }

    /// A device that refuses a queue was shown nothing, and can be told later.
    #[test]
    fn refused_queues() -> Result {
        on_each_rig::<16>(16, 4, |rig| {
            let buf = read(rig.dma, 10)?;
            let (tag, _) = rig.submit(buf, Say::Plain)?;

            rig.stop();
            open(rig.dma.bound())?;

            let starts = rig.registers.starts.load(Relaxed);

            rig.registers.refusals.store(1, Relaxed);
            ensure!(rig.done.start().err() == Some(EIO) && rig.done.is_stopped());

            // What it says all the same completes nothing that was submitted before.
            rig.device.next = 0;
            rig.device.done(tag, 10);
            ensure!(rig.complete().err() == Some(EBADMSG));

            rig.device.next = 0;
            rig.done.start()?;
            rig.registers.refusals.store(1, Relaxed);
            ensure!(rig.io.start(|_, _| {}).err() == Some(EIO));

            let buf = read(rig.dma, 10)?;
            ensure!(rig.submit(buf, Say::Plain).err() == Some(ESHUTDOWN));
            ensure!(rig.io.completer.is_stopped());

            let mut back = 0;

            rig.io.start(|_, _| back += 1)?;
            ensure!(back == 1 && rig.registers.starts.load(Relaxed) == starts + 4);

            let buf = read(rig.dma, 10)?;
            let (tag, _) = rig.submit(buf, Say::Plain)?;

            rig.device.done(tag, 10);
            rig.complete()?;
            Ok(())
        })
    }

    /// A completion that was seen before a stop completes nothing that was submitted afterwards:
    /// while a queue is reaped it can't be started, and without it no other one can.
    #[test]
    fn seen_before_a_stop() -> Result {
        on_each_rig::<1>(8, 1, |rig| {
            let buf = read(rig.dma, 10)?;
            let (tag, _) = rig.submit(buf, Say::Plain)?;
            let mut outcome = Err(ENOENT);

            rig.device.done(tag, 10);

            let Rig { dma, done, io, .. } = rig;

            done.reap(1, |seen| {
                outcome = (|| {
                    // SAFETY: The device (the test) accesses nothing.
                    unsafe { prove(*dma) };
                    open(dma.bound())?;
                    ensure!(io.start(|_, _| {}).err() == Some(EINVAL));

                    match io.completer.complete(seen) {
                        Err(Stray::Other(_)) => Ok(()),
                        _ => Err(EIO),
                    }
                })();
            });

            outcome?;
            ensure!(rig.io.completer.in_flight() == 0);
            Ok(())
        })
    }

    /// A queue that isn't started tells the device nothing, and completes nothing.
    #[test]
    fn not_started() -> Result {
        on_each_bus(|pdev| {
            let dma = Mapper::get(pdev.as_ref().bound())?;
            let registers = Registers::new(dma.device())?;
            let mut done = Completions::new(dma, Completes(registers.clone(), 0), 8)?;
            let port = done.port(0, 4)?;
            let mut io = Commands::<Submits<'_, 8>, Read<'_>>::new(
                dma,
                Submits::new(registers.clone()),
                port,
                None,
            )?;

            ensure!(done.start().err() == Some(ESHUTDOWN));
            ensure!(io.start(|_, _| {}).err() == Some(ESHUTDOWN));
            ensure!(registers.starts.load(Relaxed) == 0);

            io.submitter
                .submit(read(dma, 10)?, Say::Plain)
                .map_err(|e| e.error)?;
            ensure!(io.submitter.kick().err() == Some(ESHUTDOWN));
            ensure!(io.submitter.doorbells() == 0);
            ensure!(done.reap(8, |_| {}) == 0);

            // The device was shown nothing: all of it is freed.
            let before = quarantined();

            drop((io, done));
            ensure!(quarantined() == before);
            Ok(())
        })
    }

    /// Queues that are dropped while the device runs are kept until there is a proof.
    #[test]
    fn dropped_in_flight() -> Result {
        on_each_bus(|pdev| {
            let dma = open(pdev.as_ref().bound())?;
            let mut rig = Rig::<16, Read<'_>>::new(dma, 16, 4)?;

            for _ in 0..3 {
                rig.submit(read(dma, 100)?, Say::Plain)?;
            }

            let before = quarantined();
            let Rig { done, io, .. } = rig;
            let Commands {
                submitter,
                completer,
            } = io;

            drop(submitter);
            ensure!(quarantined() == before);
            drop(completer);
            // The payloads with their queue.
            ensure!(quarantined() == before + 1);
            drop(done);
            ensure!(quarantined() == before + 2);

            // SAFETY: The device (the test) accesses nothing.
            unsafe { prove(dma) };
            ensure!(quarantined() == before + 2);

            // After a proof they are freed at once.
            open(dma.bound())?;

            let mut rig = Rig::<16, Read<'_>>::new(dma, 16, 4)?;

            rig.submit(read(dma, 100)?, Say::Plain)?;
            rig.stop();
            open(dma.bound())?;
            drop(rig);
            ensure!(quarantined() == before + 2);
            // SAFETY: As above.
            unsafe { prove(dma) };
            Ok(())
        })
    }

    /// A queue has the port of its number, in the completion queue in which it completes: or one
    /// queue's entries would complete another one's commands.
    #[test]
    fn strange_ports() -> Result {
        on_each_bus(|pdev| {
            let dma = open(pdev.as_ref().bound())?;
            let registers = Registers::new(dma.device())?;
            let mut done = Completions::new(dma, Completes(registers.clone(), 0), 16)?;
            let mut other = Completions::new(dma, Completes(registers.clone(), 1), 16)?;
            let make = |number, port| {
                Commands::<Submits<'_, 16>, ()>::new(
                    dma,
                    Submits::numbered(registers.clone(), number),
                    port,
                    None,
                )
            };

            ensure!(make(3, done.port(4, 2)?).err() == Some(EINVAL));
            ensure!(make(3, other.port(3, 2)?).err() == Some(EINVAL));
            ensure!(make(3, done.port(3, 2)?).is_ok());
            Ok(())
        })
    }

    /// A queue is told to the device only if it knows where the commands complete.
    #[test]
    fn nowhere_to_complete() -> Result {
        on_each_rig::<16>(16, 4, |rig| {
            let starts = |rig: &Rig<'_, 16, Read<'_>>| rig.registers.starts.load(Relaxed);

            // It isn't told again after a stop.
            rig.stop();
            open(rig.dma.bound())?;

            let before = starts(rig);

            ensure!(rig.io.start(|_, _| {}).err() == Some(EINVAL));
            ensure!(starts(rig) == before);
            rig.registers.refusals.store(1, Relaxed);
            ensure!(rig.done.start().err() == Some(EIO));
            ensure!(rig.io.start(|_, _| {}).err() == Some(EINVAL));
            rig.done.start()?;
            rig.io.start(|_, _| {})?;

            // It is gone.
            let mut gone = Completions::new(rig.dma, Completes(rig.registers.clone(), 0), 8)?;
            let port = gone.port(0, 2)?;
            let mut io = Commands::<Submits<'_, 16>, Read<'_>>::new(
                rig.dma,
                Submits::new(rig.registers.clone()),
                port,
                None,
            )?;

            gone.start()?;
            drop(gone);
            ensure!(io.start(|_, _| {}).err() == Some(EINVAL));
            Ok(())
        })
    }

    /// A half that belongs to another queue is refused.
    #[test]
    fn strange_halves() -> Result {
        on_each_rig::<16>(16, 4, |rig| {
            let port = rig.done.port(1, 2)?;
            let mut other = Commands::<Submits<'_, 16>, Read<'_>>::new(
                rig.dma,
                Submits::numbered(rig.registers.clone(), 1),
                port,
                None,
            )?;

            rig.stop();
            open(rig.dma.bound())?;

            let ours = &mut rig.io.submitter;

            ensure!(ours.start(&mut other.completer, |_, _| {}).err() == Some(EINVAL));
            ensure!(ours.drain(&mut other.completer, |_, _| {}).err() == Some(EINVAL));
            Ok(())
        })
    }

    /// Commands without data.
    #[test]
    fn nothing() -> Result {
        on_each_bus(|pdev| {
            let dma = open(pdev.as_ref().bound())?;
            let mut rig = Rig::<16, ()>::new(dma, 8, 4)?;
            let (tag, ticket) = rig.submit((), Say::Plain)?;

            ensure!(rig.last().segments == 0 && rig.last().len == 0);
            rig.device.done(tag, 0);
            ensure!(rig.complete()?.ticket == ticket);
            rig.stop();
            Ok(())
        })
    }

    /// What the driver knows of a command comes back with it, whether it is completed, refused or
    /// cancelled. If the queue is dropped in flight it is dropped after the proof, and once.
    #[test]
    fn private() -> Result {
        type Known<'a> = (Read<'a>, Private<Counted>);

        struct Counted(Arc<Atomic<u32>>, u32);

        impl Drop for Counted {
            fn drop(&mut self) {
                self.0.fetch_add(1, Relaxed);
            }
        }

        fn on<'a>(pdev: &platform::Device<Core<'a>>) -> Result {
            let dma = open(pdev.as_ref().bound())?;
            let drops = Arc::new(Atomic::new(0), GFP_KERNEL)?;
            let known =
                |number| Ok::<_, Error>((read(dma, 10)?, Private(Counted(drops.clone(), number))));
            let dropped = || drops.load(Relaxed);
            let mut rig = Rig::<16, Known<'a>>::new(dma, 8, 4)?;

            let (tag, _) = rig.submit(known(7)?, Say::Plain)?;

            // The device sees the buffer only.
            ensure!(rig.last().segments == 1 && rig.last().len == 10);
            rig.device.done(tag, 10);

            let (buf, counted) = rig.complete()?.payload;

            ensure!(counted.1 == 7 && dropped() == 0 && buf.bytes().len() == 10);
            drop(counted);
            ensure!(dropped() == 1);

            let Err(refused) = rig.io.submitter.submit(known(8)?, Say::Refuse) else {
                return Err(EINVAL);
            };

            ensure!(refused.error == EDOM && refused.value.1 .0 .1 == 8 && dropped() == 1);
            drop(refused);
            ensure!(dropped() == 2);

            rig.submit(known(9)?, Say::Plain)?;

            let mut numbers = 0;

            rig.restart(|_, (_, counted)| numbers += counted.1)?;
            ensure!(numbers == 9 && dropped() == 3);

            rig.submit(known(1)?, Say::Plain)?;
            rig.submit(known(2)?, Say::Plain)?;
            drop(rig);
            ensure!(dropped() == 3);

            // SAFETY: The device (the test) accesses nothing.
            unsafe { prove(dma) };
            ensure!(dropped() == 5);
            Ok(())
        }

        on_each_bus(on)
    }

    /// A block of a pool and a buffer; and what the device says to have moved of both.
    #[test]
    fn pairs() -> Result {
        type Both<'a> = (PoolEntry<'a, [u8; 40]>, Read<'a>);

        fn on<'a>(pdev: &platform::Device<Core<'a>>) -> Result {
            let dma = open(pdev.as_ref().bound())?;
            let pool = Pool::<[u8; 40]>::new(pdev.as_ref(), c"blocks")?;
            let mut rig = Rig::<16, Both<'a>>::new(dma, 8, 4)?;

            for (moved, second) in [(0, 0), (39, 0), (40, 0), (41, 1), (140, 100), (141, 0)] {
                let mut block = pool.alloc(GFP_KERNEL)?;

                block[7] = 77;

                let (tag, _) = rig.submit((block.submit(), read(dma, 100)?), Say::Plain)?;
                let last = rig.last();

                ensure!(last.segments == 2 && last.len == 140 && last.directions == 0x302);
                rig.device.done(tag, moved);

                let (block, read) = rig.complete()?.payload;

                ensure!(block[7] == 77 && read.bytes().len() == second);
            }
            ensure!(rig.io.completer.malformed() == 1);

            // One of them was shown: neither is taken.
            let block = pool.alloc(GFP_KERNEL)?.submit();
            let _ = block.address();

            let refused = rig
                .io
                .submitter
                .submit((block, read(dma, 100)?), Say::Plain);
            let Err(e) = refused else {
                return Err(EINVAL);
            };

            ensure!(e.error == EINVAL && e.value.1.take_back().is_ok());

            let (block, buf) = (pool.alloc(GFP_KERNEL)?.submit(), read(dma, 100)?);
            let _ = buf.address();

            let refused = rig.io.submitter.submit((block, buf), Say::Plain);

            ensure!(refused.err().map(|e| e.error) == Some(EINVAL));
            rig.stop();
            // After the proof the block is freed.
            Ok(())
        }

        on_each_bus(on)
    }

    /// A device can't be done with a command that it wasn't told of: it would fetch it later.
    #[test]
    fn not_kicked() -> Result {
        on_each_rig::<16>(8, 4, |rig| {
            let dma = rig.dma;
            let (first, _) = rig.submit(read(dma, 10)?, Say::Plain)?;

            rig.device.done(first, 10);
            drop(rig.complete()?);

            // Its slot is the next one, its tag the first.
            rig.io
                .submitter
                .submit(read(dma, 20)?, Say::Plain)
                .map_err(|e| e.error)?;

            let tag = rig.entry(1).tag;

            rig.device.done(tag, 20);
            ensure!(rig.complete().is_err());
            ensure!(rig.io.completer.strays() == 1 && rig.io.completer.in_flight() == 1);

            rig.io.submitter.kick()?;
            rig.device.done(tag, 20);
            ensure!(rig.complete()?.payload.bytes().len() == 20);
            Ok(())
        })
    }

    /// Memory in pieces: all of its segments go to the device, and it comes back as a whole.
    #[test]
    fn lists() -> Result {
        type List<'a> = ScatterMap<'a, KVec<Buf>, FromDevice>;

        fn list<'a>(dma: Mapper<'a>) -> Result<List<'a>> {
            let mut pieces = KVec::new();

            for len in [100, 200, 50] {
                pieces.push(buf(len)?, GFP_KERNEL)?;
            }

            Ok(ScatterMap::map(dma, pieces, GFP_KERNEL)?)
        }

        on_each_bus(|pdev| {
            let dma = open(pdev.as_ref().bound())?;
            let mut rig = Rig::<16, List<'_>>::new(dma, 8, 4)?;

            for (moved, defined) in [(0, 0), (120, 120), (350, 350), (351, 0)] {
                let (tag, _) = rig.submit(list(dma)?, Say::Plain)?;
                let last = rig.last();

                ensure!(last.len == 350 && (1..=3).contains(&last.segments));
                // Each of them is written.
                ensure!(last.directions == 0x020202 >> (8 * (3 - last.segments)));
                rig.device.done(tag, moved);

                let back = rig.complete()?.payload;

                ensure!(back.defined() == defined);
                ensure!(back.slices().map(<[u8]>::len).sum::<usize>() == defined);
                ensure!(back.unmap().len() == 3);
            }
            ensure!(rig.io.completer.malformed() == 1);

            // What the device wasn't told of can be taken back.
            let Err(refused) = rig.io.submitter.submit(list(dma)?, Say::Refuse) else {
                return Err(EINVAL);
            };

            ensure!(refused.error == EDOM && refused.value.take_back().is_ok());

            // What somebody else may have shown isn't taken.
            let shown = list(dma)?;
            let _ = shown.segments();
            let refused = rig.io.submitter.submit(shown, Say::Plain);

            ensure!(refused.err().map(|e| e.error) == Some(EINVAL));
            rig.stop();
            Ok(())
        })
    }

    /// One of two kinds, or none.
    #[test]
    fn kinds() -> Result {
        type Any<'a> =
            Option<Either<Streaming<'a, Buf, ToDevice>, Streaming<'a, Buf, Bidirectional>>>;

        on_each_bus(|pdev| {
            let dma = open(pdev.as_ref().bound())?;
            let mut rig = Rig::<16, Any<'_>>::new(dma, 8, 4)?;

            for (kind, directions, len) in [(0, 0, 0), (1, 1, 50), (2, 3, 60)] {
                let payload = match kind {
                    0 => None,
                    1 => Some(Either::First(Streaming::map(dma, buf(50)?)?)),
                    _ => Some(Either::Second(Streaming::map(dma, buf(60)?)?)),
                };
                let (tag, _) = rig.submit(payload, Say::Plain)?;

                ensure!(rig.last().directions == directions && rig.last().len == len);
                rig.device.done(tag, 1);

                let back = match rig.complete()?.payload {
                    None => 0,
                    Some(Either::First(buf)) => {
                        ensure!(buf.bytes().len() == 1);
                        buf.unmap().len()
                    }
                    // Of what both write, all is defined.
                    Some(Either::Second(buf)) => {
                        ensure!(buf.bytes().len() == 60);
                        buf.unmap().len()
                    }
                };

                // CAST: Widening.
                ensure!(back == len as usize);
            }

            // More than nothing was moved.
            ensure!(rig.io.completer.malformed() == 1);
            rig.stop();
            Ok(())
        })
    }

    /// Each slot has a scratch block of its own, and keeps it.
    #[test]
    fn scratch() -> Result {
        fn on<'a>(pdev: &platform::Device<Core<'a>>) -> Result {
            let dma = open(pdev.as_ref().bound())?;
            let pool = Pool::<[u64; 8]>::new(pdev.as_ref(), c"lists")?;
            let mut rig = Rig::<16, ()>::with_scratch(dma, 8, 2, Some(pool))?;
            let mut lists = [0; 2];

            for turn in 0..6_u64 {
                let mut tags = [0; 2];

                for (i, tag) in tags.iter_mut().enumerate() {
                    // CAST: Widening.
                    let word = turn * 2 + i as u64 + 1;

                    *tag = rig.submit((), Say::List(word))?.0;

                    let last = rig.last();

                    // What the last command of this slot has written there.
                    ensure!(last.address == if turn > 0 { word - 2 } else { 0 });
                    ensure!(last.list != 0 && (turn == 0 || last.list == lists[i]));
                    lists[i] = last.list;
                }

                ensure!(lists[0] != lists[1]);
                rig.device.done(tags[0], 0);
                rig.device.done(tags[1], 0);
                rig.complete()?;
                rig.complete()?;
            }

            rig.stop();
            Ok(())
        }

        on_each_bus(on)
    }

    /// A command tells the device where another queue is, unless the device was stopped since.
    #[test]
    fn places() -> Result {
        on_each_bus(|pdev| {
            let dma = open(pdev.as_ref().bound())?;
            let mut rig = Rig::<16, ()>::new(dma, 8, 4)?;
            let mut other = Completions::new(dma, Completes(rig.registers.clone(), 0), 16)?;

            // It wasn't started.
            ensure!(rig.submit((), Say::Place(other.place())).err() == Some(ESHUTDOWN));

            other.start()?;

            let place = other.place();

            ensure!(place.len() == 16);
            rig.submit((), Say::Place(place))?;
            ensure!(rig.last().list != 0);

            let other_way = rig.io.submitter.place();

            ensure!(other_way.len() == rig.io.submitter.len());
            rig.submit((), Say::OtherPlace(other_way))?;
            ensure!(rig.last().list != 0);

            rig.restart(|_, ()| {})?;
            ensure!(rig.submit((), Say::Place(place)).err() == Some(ESHUTDOWN));
            other.start()?;
            ensure!(rig.submit((), Say::Place(place)).err() == Some(ESHUTDOWN));
            rig.submit((), Say::Place(other.place()))?;
            rig.stop();
            Ok(())
        })
    }

    /// The halves are used at the same time, each on a CPU of its own. Each command has a number,
    /// in its entry and in its block: so one that is lost, comes twice, or with the block of
    /// another one, is noticed.
    #[cfg(CONFIG_64BIT)]
    #[test]
    fn on_two_cpus() -> Result {
        /// How many commands.
        const COMMANDS: u32 = 5_000;

        /// Whether that many were seen to complete, once each.
        struct Seen(KVec<bool>);

        impl Seen {
            fn note(&mut self, number: u64) -> Result {
                let place = usize::try_from(number)
                    .ok()
                    .and_then(|number| self.0.get_mut(number));

                ensure!(!core::mem::replace(place.ok_or(EIO)?, true));
                Ok(())
            }
        }

        /// What the device has.
        struct Wire {
            player: Player,
            commands: core::ptr::NonNull<Sqe>,
            len: u32,
        }

        // SAFETY: The memory of queues may be accessed by any thread.
        unsafe impl Send for Wire {}

        fn on<'a>(pdev: &platform::Device<Core<'a>>) -> Result {
            let dma = open(pdev.as_ref().bound())?;
            let pool = Pool::<u64>::new(pdev.as_ref(), c"numbers")?;
            let mut rig = Rig::<6, PoolEntry<'a, u64>>::new(dma, 16, 8)?;
            let mut wire = Wire {
                player: Player::new(&rig.done),
                commands: rig.io.submitter.table(),
                len: rig.io.submitter.len(),
            };
            let registers = rig.registers.clone();
            let (done, io) = (&mut rig.done, &mut rig.io);
            let (submitter, completer) = (&mut io.submitter, &mut io.completer);
            let mut seen = Seen(KVec::from_elem(false, COMMANDS as usize, GFP_KERNEL)?);

            let mut submit = |together: &Together| {
                for number in 0..COMMANDS {
                    let mut block = pool.alloc(GFP_KERNEL)?;

                    *block = number.into();

                    let mut block = block.submit();

                    while let Err(e) = submitter.submit(block, Say::Number(number)) {
                        ensure!(e.error == EBUSY);
                        block = e.value;
                        submitter.kick()?;
                        together.pause()?;
                    }

                    if number % 3 == 0 {
                        submitter.kick()?;
                    }
                }

                submitter.kick()
            };

            let mut complete = |together: &Together| {
                let mut left = COMMANDS;

                while left > 0 {
                    let mut outcome: Result = Ok(());

                    let count = done.reap(5, |entry| {
                        outcome = outcome.and_then(|()| {
                            let completed = completer.complete(entry).map_err(|_| EBADMSG)?;
                            let number = *completed.payload;
                            let said = completed.entry.validate(|entry| Ok(entry.moved))?;

                            ensure!(number == said.into());
                            seen.note(number)
                        });
                    });

                    outcome?;
                    left -= count;

                    if count == 0 {
                        together.pause()?;
                    }
                }

                Ok(())
            };

            let mut device = |together: &Together| {
                let Wire {
                    player,
                    commands,
                    len,
                } = &mut wire;
                let mut random = Random(1);
                let mut pending = KVec::with_capacity(8, GFP_KERNEL)?;
                let (mut next, mut left) = (0, COMMANDS);

                while left > 0 {
                    let tail = registers.tail.load(Acquire);

                    while next != tail {
                        // CAST: Widening.
                        // SAFETY: In the queue, which is there as long as the test plays.
                        let sqe = unsafe { commands.add(next as usize).as_ptr().read_volatile() };

                        pending.push((sqe.tag, sqe.list), GFP_KERNEL)?;
                        next = (next + 1) % *len;
                    }

                    // CAST: A few.
                    let count = pending.len() as u32;

                    if count == 0 || !player.has_room(registers.head.load(Acquire)) {
                        together.pause()?;
                        continue;
                    }

                    let one = pending.remove(random.below(count) as usize);
                    let (tag, number) = one.map_err(|_| EIO)?;

                    player.done(tag, number.try_into()?);
                    left -= 1;
                }

                Ok(())
            };

            let outcome = on_cpus([&mut submit, &mut complete, &mut device], |_| Ok(()));

            rig.stop();
            outcome?;
            ensure!(rig.io.completer.strays() == 0 && rig.io.completer.in_flight() == 0);
            Ok(())
        }

        if !has_cpus() {
            return Ok(());
        }

        with_platform_device(on)
    }
}
