// SPDX-License-Identifier: GPL-2.0

//! Tests of queues of which an entry completes all commands before it, whose entries have numbers,
//! and of which the device reads the tail from memory, with a device that the test plays: on any
//! bus.

use super::{
    ensure,
    fixture::{
        on_each_bus,
        open,
        prove, //
    }, //
};
use crate::{
    device::Device,
    dma::{
        queue::{
            Call,
            Commands,
            CompletionQueue,
            Completions,
            Entry,
            Head,
            Payload,
            QueueMemory,
            Stray,
            Submission,
            Tail,
            Turn, //
        },
        FromDevice,
        Mapper,
        Streaming,
        Untrusted, //
    },
    prelude::*,
    sync::{
        aref::ARef,
        atomic::{
            Atomic,
            Relaxed, //
        },
        Arc, //
    }, //
};

/// How many commands can be in flight, and how many completions there is room for.
const TAGS: u16 = 6;
const LEN: u32 = 8;

/// A completion, as RDMA has it: one for many commands, with the number that it has itself.
#[derive(Clone, Copy, FromBytes, IntoBytes)]
#[repr(C)]
struct Ack {
    tag: u32,
    moved: u32,
    _reserved: u32,
    number: u32,
}

// SAFETY: By the numbers of the contract:
// 1. `number` is written last.
// 2. Entries are numbered from 1 on; blank ones have 0.
// 3. The tests write tags for commands that are done.
// 4. Nobody accesses what commands name.
unsafe impl Entry for Ack {
    const WORD: usize = 12;
    const CUMULATIVE: bool = true;

    fn is_new(word: u32, turn: Turn) -> bool {
        word == turn.position().wrapping_add(1)
    }

    fn tag(&self) -> Option<Untrusted<u32>> {
        Some(Untrusted::new(self.tag))
    }

    fn moved(&self) -> Option<Untrusted<usize>> {
        // CAST: Widening.
        Some(Untrusted::new(self.moved as usize))
    }
}

struct Acks(ARef<Device>);

// SAFETY: By the numbers of the contract: 1. There is one device. 2., 3. The tests write entries in
// order, where one is free. 4. There are no registers. 5. It doesn't matter.
unsafe impl CompletionQueue for Acks {
    type Entry = Ack;

    fn device(&self) -> &Device {
        &self.0
    }

    fn start(&mut self, _queue: QueueMemory<'_>) -> Result {
        Ok(())
    }

    fn consumed(&mut self, _head: Head) {}
}

/// What the device reads and writes, and its register.
struct Bells {
    /// The tail in memory, and how often it was written.
    tail: Atomic<u32>,
    published: Atomic<u32>,
    /// When the device wants to be told by the register.
    event: Atomic<u32>,
    register: Atomic<u32>,
}

struct Posts(ARef<Device>, Arc<Bells>);

// SAFETY: By the numbers of the contract: 1. There is one device. 2. It accesses nothing. 3.
// `describe` keeps nothing. 4., 5. The tests play that. 6. There are no registers, and `publish`
// writes one word. 7. It doesn't matter.
unsafe impl Submission for Posts {
    type Entry = u64;
    type Completion = Ack;
    type Command = ();
    type Scratch = ();
    const TAG_BITS: u32 = 5;

    fn device(&self) -> &Device {
        &self.0
    }

    fn start(&mut self, _queue: QueueMemory<'_>) -> Result {
        Ok(())
    }

    fn describe<'a, P: Payload<'a>>(
        &self,
        _command: &(),
        call: Call<'_, 'a, P, ()>,
    ) -> Result<u64> {
        Ok(call.tag().into())
    }

    fn doorbell(&mut self, tail: Tail) {
        self.1.register.store(tail.index(), Relaxed);
    }

    const IN_MEMORY: bool = true;

    fn publish(&mut self, tail: Tail) {
        self.1.tail.store(tail.index(), Relaxed);
        self.1.published.add(1, Relaxed);
    }

    fn wants_doorbell(&mut self, old: Tail, tail: Tail) -> bool {
        tail.passes(self.1.event.load(Relaxed), old)
    }
}

type Buf<'a> = Streaming<'a, KVec<u8>, FromDevice>;

/// What is tested: a queue on a device that runs, and where the device writes next.
struct Rig<'a> {
    dma: Mapper<'a>,
    done: Completions<'a, Acks>,
    io: Commands<'a, Posts, Buf<'a>>,
    bells: Arc<Bells>,
    next: u32,
    posted: u32,
}

impl<'a> Rig<'a> {
    fn new(dma: Mapper<'a>) -> Result<Self> {
        let dev = || ARef::from(dma.device());
        let mut done = Completions::new(dma, Acks(dev()), LEN)?;
        let port = done.port(0, TAGS)?;
        let bells = Bells {
            tail: Atomic::new(0),
            published: Atomic::new(0),
            event: Atomic::new(0),
            register: Atomic::new(u32::MAX),
        };
        let bells = Arc::new(bells, GFP_KERNEL)?;
        let mut io = Commands::new(dma, Posts(dev(), bells.clone()), port, None)?;

        done.start()?;
        io.start(|_, _| {})?;
        Ok(Self {
            dma,
            done,
            io,
            bells,
            next: 0,
            posted: 0,
        })
    }

    /// Submits a command with a buffer of that length; returns its tag. The device isn't told.
    fn post(&mut self, len: usize) -> Result<u32> {
        let buf = KVec::from_elem(0, len.max(256), GFP_KERNEL)?;
        let submitter = &mut self.io.submitter;
        let len = submitter.len();

        submitter
            .submit(Streaming::map(self.dma, buf)?, ())
            .map_err(|e| e.error)?;

        // CAST: Widening.
        // SAFETY: In the queue, whose memory is there as long as `self`.
        let entry = unsafe {
            let at = (self.posted % len) as usize;

            submitter.table().add(at).as_ptr().read_volatile()
        };

        self.posted += 1;
        entry.try_into().map_err(Into::into)
    }

    /// Has the device write an entry, with that number.
    fn ack_as(&mut self, number: u32, tag: u32, moved: u32) {
        let ack = Ack {
            tag,
            moved,
            _reserved: 0,
            number,
        };

        // CAST: Widening.
        // SAFETY: In the queue, whose memory is there as long as `self`.
        unsafe {
            let at = (self.next % LEN) as usize;

            self.done.table().add(at).as_ptr().write_volatile(ack);
        }
    }

    fn ack(&mut self, tag: u32, moved: u32) {
        self.ack_as(self.next + 1, tag, moved);
        self.next += 1;
    }

    /// Reaps one entry. Returns the length of what came back, and how much of it was moved; an
    /// error for an entry that isn't believed.
    fn reap(&mut self) -> Result<KVec<(usize, u32)>> {
        let mut outcome = Err(ENOENT);

        self.done.reap(1, |seen| {
            let mut back = KVec::new();
            let through = self.io.completer.complete_through(seen, |one| {
                let moved = one.payload.bytes().len();
                // CAST: A tag of the tests.
                let index = one.ticket.index() as u32;

                back.push((moved, index), GFP_ATOMIC).unwrap_or(());
            });

            outcome = match through {
                // CAST: A few.
                Ok(count) if count as usize == back.len() => Ok(back),
                Ok(_) => Err(EINVAL),
                Err(Stray::Unknown(_)) => Err(EBADMSG),
                Err(_) => Err(EINVAL),
            };
        });
        outcome
    }
}

fn on_each_rig(mut body: impl for<'a> FnMut(&mut Rig<'a>) -> Result) -> Result {
    on_each_bus(|pdev| {
        let dma = open(pdev.as_ref().bound())?;
        let mut rig = Rig::new(dma)?;
        let outcome = body(&mut rig);

        // SAFETY: The device (the test) accesses nothing.
        unsafe { prove(dma) };
        outcome
    })
}

#[kunit_tests(rust_dma_queue_through)]
mod cases {
    use super::*;

    /// An entry completes its command, and all before it, in order, and no later one; for many
    /// turns of all queues.
    #[test]
    fn through() -> Result {
        on_each_rig(|rig| {
            let mut next = 0;

            for turn in 0..200_u32 {
                let mut tags = KVec::new();

                for _ in 0..TAGS {
                    tags.push(rig.post(256)?, GFP_KERNEL)?;
                }

                rig.io.submitter.kick()?;
                ensure!(rig.io.completer.in_flight() == u32::from(TAGS));

                // The first part, and then the rest.
                // CAST: Small.
                let first = 1 + (turn % u32::from(TAGS)) as usize;

                for end in [first, usize::from(TAGS)] {
                    let left = rig.io.completer.in_flight();

                    if left == 0 {
                        continue;
                    }

                    rig.ack(tags[end - 1], 100);

                    let back = rig.reap()?;

                    // CAST: Small.
                    ensure!(rig.io.completer.in_flight() == u32::from(TAGS) - end as u32);
                    ensure!(left - back.len() as u32 == rig.io.completer.in_flight());

                    for (i, (moved, index)) in back.iter().enumerate() {
                        let is_last = i + 1 == back.len();

                        // Of the earlier ones all bytes were moved.
                        ensure!(*moved == if is_last { 100 } else { 256 });
                        ensure!(*index == next);
                        next = (next + 1) % u32::from(TAGS);
                    }
                }
            }

            ensure!(rig.io.completer.strays() == 0 && rig.io.completer.malformed() == 0);
            Ok(())
        })
    }

    /// A tag that isn't in flight completes nothing, and neither does one that the device wasn't
    /// told of, or that was completed with others.
    #[test]
    fn lies() -> Result {
        on_each_rig(|rig| {
            let (first, second) = (rig.post(256)?, rig.post(256)?);

            rig.io.submitter.kick()?;

            let third = rig.post(256)?;

            for tag in [third, first ^ 8, u32::MAX] {
                rig.ack(tag, 0);
                ensure!(rig.reap().err() == Some(EBADMSG));
            }

            ensure!(rig.io.completer.in_flight() == 3);
            rig.ack(second, 257);
            ensure!(rig.reap()?[..] == [(256, 0), (0, 1)]);

            for tag in [first, second, third] {
                rig.ack(tag, 0);
                ensure!(rig.reap().err() == Some(EBADMSG));
            }

            rig.io.submitter.kick()?;
            rig.ack(third, 1);
            ensure!(rig.reap()?[..] == [(1, 2)]);
            ensure!(rig.io.completer.strays() == 6 && rig.io.completer.malformed() == 1);
            Ok(())
        })
    }

    /// An entry is new if it has the next number: not that of another turn, and no other number.
    #[test]
    fn numbers() -> Result {
        on_each_rig(|rig| {
            for _ in 0..3 * LEN {
                let tag = rig.post(256)?;

                rig.io.submitter.kick()?;

                let number = rig.next + 1;

                for wrong in [
                    0,
                    number.wrapping_sub(LEN),
                    number + LEN,
                    number - 1,
                    number + 1,
                ] {
                    rig.ack_as(wrong, tag, 0);
                    ensure!(rig.reap().err() == Some(ENOENT));
                }

                rig.ack(tag, 256);
                ensure!(rig.reap()?.len() == 1);
            }

            Ok(())
        })
    }

    /// What is in flight at a stop comes back, and the order begins anew.
    #[test]
    fn after_a_stop() -> Result {
        on_each_rig(|rig| {
            for _ in 0..3 {
                for _ in 0..4 {
                    rig.post(256)?;
                }

                rig.io.submitter.kick()?;

                // SAFETY: The device (the test) accesses nothing.
                unsafe { prove(rig.dma) };
                open(rig.dma.bound())?;
                rig.done.start()?;
                (rig.next, rig.posted) = (0, 0);

                let mut cancelled = 0;

                rig.io.start(|_, _| cancelled += 1)?;
                ensure!(cancelled == 4);

                let (_, second) = (rig.post(256)?, rig.post(256)?);

                rig.io.submitter.kick()?;
                rig.ack(second, 3);
                ensure!(rig.reap()?[..] == [(256, 0), (3, 1)]);
            }

            Ok(())
        })
    }

    /// The tail is in memory at each kick, and in the register if the device asked for that entry.
    #[test]
    fn tail_in_memory() -> Result {
        on_each_rig(|rig| {
            let entries = rig.io.submitter.len();
            let (mut tail, mut published, mut doorbells) = (0, 0, 0);

            for turn in 0..20 * entries {
                let batch = 1 + turn % 3;
                // Before the first entry of the batch, at each of it, and behind.
                let at = turn % 6;
                let event = (tail + entries + at - 1) % entries;
                let wants = (1..=batch).contains(&at);
                let mut last = 0;

                rig.bells.event.store(event, Relaxed);
                rig.bells.register.store(u32::MAX, Relaxed);

                for _ in 0..batch {
                    last = rig.post(256)?;
                }

                ensure!(rig.bells.published.load(Relaxed) == published);
                rig.io.submitter.kick()?;
                tail = (tail + batch) % entries;
                published += 1;

                ensure!(rig.bells.tail.load(Relaxed) == tail);
                ensure!(rig.bells.published.load(Relaxed) == published);

                let told = if wants { tail } else { u32::MAX };

                doorbells += u64::from(wants);
                ensure!(rig.bells.register.load(Relaxed) == told);
                ensure!(rig.io.submitter.doorbells() == doorbells);

                // There is nothing to tell.
                rig.io.submitter.kick()?;
                ensure!(rig.bells.published.load(Relaxed) == published);

                rig.ack(last, 0);
                rig.reap()?;
            }

            ensure!(doorbells > 0 && doorbells < u64::from(published));
            Ok(())
        })
    }
}
