// SPDX-License-Identifier: GPL-2.0

//! Tests of queues, on a device that carries commands out as its script says.

use super::ensure;
use crate::{
    device::{
        Core,
        Device, //
    },
    dma::{
        quarantined,
        queue::{
            Commands,
            Completions,
            Either,
            Stray,
            Ticket, //
        },
        sim::{
            self,
            Completes,
            Controller,
            ControllerStopper,
            Fate,
            Forged,
            List,
            Model,
            Script,
            Sim,
            Submits, //
        },
        Bidirectional,
        Constraints,
        FromDevice,
        Mapper,
        Pool,
        Quiesce,
        Session,
        StopOutcome,
        Streaming,
        StreamingBox,
        ToDevice, //
    },
    platform,
    prelude::*,
    sync::Arc,
    time::{
        Instant,
        Monotonic, //
    }, //
};

/// The size of a buffer, so that it is alone in its cache lines.
const BUF: usize = 256;

/// How many commands can be in flight in each queue, and how many bits a tag has.
const TAGS: u16 = 6;
const BITS: u32 = 8;

type Write<'a> = Streaming<'a, KVec<u8>, ToDevice>;
type Read<'a> = Streaming<'a, KVec<u8>, FromDevice>;
type Both<'a> = Streaming<'a, KVec<u8>, Bidirectional>;

/// What goes with a command: nothing, what the device reads, what it writes, or first the one and
/// then the other, and both once more.
type Load<'a> = Option<Either<Write<'a>, Either<Read<'a>, (Write<'a>, (Read<'a>, Both<'a>))>>>;
type Back<'a> = Option<
    Either<
        StreamingBox<'a, KVec<u8>, ToDevice>,
        Either<
            StreamingBox<'a, KVec<u8>, FromDevice>,
            (
                StreamingBox<'a, KVec<u8>, ToDevice>,
                (
                    StreamingBox<'a, KVec<u8>, FromDevice>,
                    StreamingBox<'a, KVec<u8>, Bidirectional>,
                ),
            ),
        >,
    >,
>;

type Io<'a> = Commands<'a, Submits<BITS>, Load<'a>>;

/// Bytes that tell one command from others.
fn pattern(seed: u64, len: usize) -> Result<KVec<u8>> {
    let mut vec = KVec::with_capacity(len.max(BUF), GFP_KERNEL)?;

    for i in 0..len {
        // CAST: Cut on purpose.
        vec.push((seed as usize * 31 + i * 11 + 1) as u8, GFP_KERNEL)?;
    }

    Ok(vec)
}

/// Whether a device that carries out this command has written these bytes, from `at` on.
fn is_written(argument: u64, at: usize, bytes: &[u8]) -> bool {
    bytes
        .iter()
        .enumerate()
        .all(|(i, byte)| *byte == Controller::byte(argument, at + i))
}

/// What a command is, and what is to come back.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Expected {
    ticket: Ticket,
    argument: u64,
    kind: usize,
    len: usize,
}

impl Expected {
    /// How many bytes the command has.
    fn bytes(&self) -> usize {
        match self.kind {
            0 => 0,
            1 | 2 => self.len,
            _ => 3 * self.len,
        }
    }

    /// Checks what came back, of which the device has moved all.
    fn check(&self, payload: Back<'_>) -> Result {
        let Self {
            argument,
            kind,
            len,
            ..
        } = *self;

        match (kind, payload) {
            (0, None) => {}
            (1, Some(Either::First(write))) => {
                ensure!(write.bytes() == &pattern(argument, len)?[..]);
            }
            (2, Some(Either::Second(Either::First(read)))) => {
                ensure!(read.bytes().len() == len && is_written(argument, 0, read.bytes()));
            }
            (3, Some(Either::Second(Either::Second((write, (read, both)))))) => {
                ensure!(write.bytes() == &pattern(argument, len)?[..]);
                ensure!(read.bytes().len() == len && is_written(argument, len, read.bytes()));
                ensure!(both.bytes().len() == len && is_written(argument, 2 * len, both.bytes()));
            }
            _ => return Err(EINVAL),
        }

        Ok(())
    }

    /// Takes the buffers of a command that wasn't completed, or of whose length the device lies.
    /// Whatever the device has said, their bytes can be read.
    fn touch(payload: Back<'_>) -> usize {
        fn sum(bytes: &[u8]) -> usize {
            core::hint::black_box(bytes.iter().fold(0, |a, b| a ^ b));
            bytes.len()
        }

        match payload {
            None => 0,
            Some(Either::First(write)) => sum(write.bytes()),
            Some(Either::Second(Either::First(read))) => sum(read.bytes()),
            Some(Either::Second(Either::Second((write, (read, both))))) => {
                sum(write.bytes()) + sum(read.bytes()) + sum(both.bytes())
            }
        }
    }
}

/// Two submission queues that complete in one completion queue, and the device.
struct Rig<'r, 'a> {
    sim: &'r Arc<Sim>,
    session: &'r Session<'a, ()>,
    dma: Mapper<'a>,
    device: Arc<Controller>,
    done: Completions<'a, Completes>,
    io: [Io<'a>; 2],
    /// The argument of the next command.
    next: u64,
}

impl<'a> Rig<'_, 'a> {
    fn start(&mut self, mut cancelled: impl FnMut(usize, Ticket, Back<'a>)) -> Result {
        self.done.start()?;

        for (i, io) in self.io.iter_mut().enumerate() {
            io.start(|ticket, back| cancelled(i, ticket, back))?;
        }

        Ok(())
    }

    /// Time passes for the device.
    fn wait(&self, ticks: u32) {
        self.sim.advance(ticks);
    }

    /// Submits a command; the device isn't told.
    fn submit(&mut self, queue: usize, kind: usize, len: usize) -> Result<Expected> {
        let dma = self.dma;
        let argument = self.next;
        let load = match kind {
            0 => None,
            1 => Some(Either::First(Streaming::map(dma, pattern(argument, len)?)?)),
            2 => Some(Either::Second(Either::First(Streaming::map(
                dma,
                pattern(0, len)?,
            )?))),
            _ => Some(Either::Second(Either::Second((
                Streaming::map(dma, pattern(argument, len)?)?,
                (
                    Streaming::map(dma, pattern(0, len)?)?,
                    Streaming::map(dma, pattern(argument, len)?)?,
                ),
            )))),
        };

        let ticket = self.io[queue]
            .submitter
            .submit(load, argument)
            .map_err(|e| e.error)?;

        self.next += 1;
        Ok(Expected {
            ticket,
            argument,
            kind,
            len,
        })
    }

    fn kick(&mut self) -> Result {
        self.io[0].submitter.kick()?;
        self.io[1].submitter.kick()
    }

    /// Reaps, and hands each command that is done to `give`, with its queue.
    fn reap(
        &mut self,
        budget: u32,
        mut give: impl FnMut(usize, Ticket, Back<'a>, bool) -> Result,
    ) -> Result<u32> {
        let mut outcome = Ok(());
        let Self { done, io, .. } = self;
        let [first, second] = io;

        let count = done.reap(budget, |seen| {
            let (queue, completed) = match first.completer.complete(seen) {
                Err(Stray::Other(seen)) => (1, second.completer.complete(seen)),
                completed => (0, completed),
            };

            if let Ok(completed) = completed {
                let failed = completed
                    .entry
                    .validate(|entry| Ok(entry.has_failed()))
                    .unwrap_or(true);
                let given = give(queue, completed.ticket, completed.payload, failed);

                outcome = outcome.and(given);
            }
        });

        outcome.map(|()| count)
    }

    fn strays(&self) -> u64 {
        self.io.iter().map(|io| io.completer.strays()).sum()
    }

    fn in_flight(&self) -> u32 {
        self.io.iter().map(|io| io.completer.in_flight()).sum()
    }
}

/// Runs a test with two queues on one bus, which complete in a queue of `len` entries; the device
/// is stopped afterwards.
fn with_rig(script: Script, len: u32, mut body: impl FnMut(&mut Rig<'_, '_>) -> Result) -> Result {
    sim::run(script, |pdev, sim| on_bus(pdev, sim, len, &mut body))
}

fn on_bus<'a>(
    pdev: &platform::Device<Core<'a>>,
    sim: &Arc<Sim>,
    len: u32,
    body: &mut dyn FnMut(&mut Rig<'_, 'a>) -> Result,
) -> Result {
    let device = Controller::new(sim)?;
    let stopper = ControllerStopper(device.clone());
    let session: Session<'a, ()> = Session::new(pdev.as_ref(), stopper, Ok::<_, Error>(()))?;
    let mut rig = make(pdev, sim, &session, device, len)?;

    session.start()?;
    rig.start(|_, _, _| {})?;

    let outcome = body(&mut rig);

    // Before the queues go.
    let stopped = session.stop();

    outcome?;
    ensure!(stopped == StopOutcome::Stopped);
    Ok(())
}

fn make<'r, 'a>(
    pdev: &platform::Device<Core<'a>>,
    sim: &'r Arc<Sim>,
    session: &'r Session<'a, ()>,
    device: Arc<Controller>,
    len: u32,
) -> Result<Rig<'r, 'a>> {
    let dma = Mapper::get(pdev.as_ref().bound())?;
    let lists = Pool::<List>::new(pdev.as_ref(), c"lists")?;
    let mut done = Completions::new(dma, Completes(device.clone(), 1), len)?;
    let (first, second) = (done.port(0, TAGS)?, done.port(1, TAGS)?);

    Ok(Rig {
        sim,
        session,
        dma,
        io: [
            Commands::new(dma, Submits(device.clone(), 0, 1), first, Some(lists))?,
            Commands::new(dma, Submits(device.clone(), 1, 1), second, Some(lists))?,
        ],
        device,
        done,
        next: 1,
    })
}

/// The shortest completion queue for the commands of both queues, and one that is longer than
/// needed.
const TIGHT: u32 = 16;
const WIDE: u32 = 64;

/// Runs a test on each model. Memory is as weakly ordered as can be.
macro_rules! on_each {
    ($fate:expr, $len:expr, |$rig:ident| $body:block) => {
        for model in Model::ALL {
            with_rig(
                Script::new(model).fate($fate).weak_order(true),
                $len,
                |$rig| $body,
            )?;
        }
    };
}

#[kunit_tests(rust_dma_queue_sim)]
mod cases {
    use super::*;

    /// The device reads and writes what commands name, in one piece or in several, and nothing
    /// else; at once, late, and in any order.
    #[test]
    fn moves() -> Result {
        for fate in [Fate::after(0), Fate::after(3), Fate::within(10)] {
            on_each!(fate, WIDE, |rig| {
                for turn in 0..12 {
                    let mut expected = [KVec::new(), KVec::new()];

                    for i in 0..TAGS.into() {
                        for queue in [0, 1] {
                            let command = rig.submit(queue, (i + turn) % 4, 60 + i)?;

                            expected[queue].push(command, GFP_KERNEL)?;
                        }
                    }

                    // What is too much comes back.
                    ensure!(rig.submit(1, 1, 10).err() == Some(EBUSY));
                    rig.kick()?;
                    rig.wait(20);

                    rig.reap(64, |queue, ticket, back, failed| {
                        let at = expected[queue].iter().position(|one| one.ticket == ticket);
                        let command = expected[queue].remove(at.ok_or(EIO)?).map_err(|_| EIO)?;

                        ensure!(!failed);
                        command.check(back)
                    })?;
                    ensure!(expected.iter().all(|left| left.is_empty()));
                    ensure!(rig.in_flight() == 0);

                    while let Some(read) = rig.device.next_read() {
                        let len = read.bytes.len();

                        // The last third of a long one is what was there before it was written.
                        ensure!(
                            read.bytes[..len.min(60)] == pattern(read.argument, len.min(60))?[..]
                        );
                    }
                }

                ensure!(rig.strays() == 0 && rig.device.waits() == 0);
                Ok(())
            });
        }

        Ok(())
    }

    /// The device never has to wait for room, even if there is hardly any, whatever the budget is.
    /// In steady state nothing is allocated.
    #[test]
    fn no_overrun() -> Result {
        on_each!(Fate::within(2), TIGHT, |rig| {
            let mut allocs = None;

            for turn in 0..60 {
                for queue in [0, 1] {
                    while rig.io[queue].submitter.refresh() > 0 {
                        rig.submit(queue, 3, 8)?;
                    }
                }
                rig.kick()?;
                rig.wait(1);
                rig.reap(1 + turn % 14, |_, _, _, _| Ok(()))?;
                while rig.device.next_read().is_some() {}

                // Blocks are allocated by pages.
                let now = rig.sim.counters().allocs;

                ensure!(turn < 20 || allocs == Some(now));
                allocs = Some(now);
            }

            ensure!(rig.device.waits() == 0);
            Ok(())
        });

        Ok(())
    }

    /// The device completes commands in another context than that in which they are submitted: a
    /// tag that was given back is used at once, before the device was told what was reaped.
    #[test]
    fn no_overrun_while_reaping() -> Result {
        on_each!(Fate::after(0), TIGHT, |rig| {
            let mut completed = 0;

            for queue in [0, 1] {
                for _ in 0..TAGS {
                    rig.submit(queue, 0, 0)?;
                }
            }
            rig.kick()?;

            let Rig { done, io, .. } = rig;
            let [first, second] = io;
            let mut outcome: Result = Ok(());

            while completed < 400 {
                done.reap(64, |seen| {
                    let (io, back) = match first.completer.complete(seen) {
                        Err(Stray::Other(seen)) => {
                            let back = second.completer.complete(seen).is_ok();

                            (&mut *second, back)
                        }
                        back => (&mut *first, back.is_ok()),
                    };

                    outcome = outcome.and_then(|()| {
                        ensure!(back);
                        io.submitter.submit(None, 0).map_err(|e| e.error)?;
                        io.submitter.kick()
                    });
                    completed += 1;
                });
            }

            outcome?;
            ensure!(rig.device.waits() == 0);
            Ok(())
        });

        Ok(())
    }

    /// A completion that comes once more completes nothing, whether its slot is in use again or
    /// not.
    #[test]
    fn repeated() -> Result {
        on_each!(Fate::after(0), WIDE, |rig| {
            for (at, ticks) in [0, 1, 1, 5, 9].into_iter().enumerate() {
                rig.device.then(Fate::after(0).twice_after(ticks))?;

                let command = rig.submit(0, 2, 40)?;

                rig.kick()?;

                let mut count = 0;

                rig.reap(64, |_, ticket, back, _| {
                    count += 1;
                    ensure!(ticket == command.ticket);
                    command.check(back)
                })?;
                ensure!(count == 1);

                // The slot is in use when it comes again.
                let mut others = KVec::new();

                for _ in 0..TAGS {
                    rig.device.then(Fate::after(20))?;
                    others.push(rig.submit(0, 2, 40)?, GFP_KERNEL)?;
                }
                ensure!(others
                    .iter()
                    .any(|other| other.ticket.index() == command.ticket.index()));
                rig.kick()?;
                rig.wait(10);
                rig.reap(64, |_, _, _, _| Err(EIO))?;
                // CAST: Widening.
                ensure!(rig.strays() == at as u64 + 1);
                rig.wait(20);
                rig.reap(64, |_, ticket, back, _| {
                    let other = others.iter().find(|other| other.ticket == ticket);

                    other.ok_or(EIO)?.check(back)
                })?;
                ensure!(rig.in_flight() == 0);
            }

            Ok(())
        });

        Ok(())
    }

    /// Completions that the device makes up, about no command or another queue.
    #[test]
    fn forged() -> Result {
        on_each!(Fate::after(5), WIDE, |rig| {
            let command = rig.submit(1, 2, 40)?;

            rig.kick()?;

            for (i, (queue, tag)) in [(0, 0), (0, u32::MAX), (1, 0x100), (1, u32::MAX), (2, 0)]
                .into_iter()
                .enumerate()
            {
                rig.device.forge(
                    1,
                    Forged {
                        queue,
                        tag,
                        moved: 40,
                        event: false,
                    },
                )?;
                rig.reap(64, |_, _, _, _| Err(EIO))?;
                // Nobody has the last one.
                ensure!(rig.strays() == (i as u64 + 1).min(4));
            }

            rig.device.forge(
                1,
                Forged {
                    event: true,
                    ..Forged::default()
                },
            )?;
            rig.reap(64, |_, _, _, _| Err(EIO))?;
            ensure!(rig.strays() == 4);

            rig.wait(10);
            ensure!(rig.reap(64, |_, _, back, _| command.check(back))? == 1);
            ensure!(rig.in_flight() == 0);
            Ok(())
        });

        Ok(())
    }

    /// Commands that fail, and lengths that can't be.
    #[test]
    fn failures_and_lengths() -> Result {
        on_each!(Fate::after(0), WIDE, |rig| {
            for (reports, defined, malformed) in
                [(0, 0, 0), (13, 13, 0), (41, 0, 1), (1 << 31, 0, 2)]
            {
                rig.device.then(Fate::after(0).bad().reports(reports))?;

                let command = rig.submit(0, 2, 40)?;

                rig.kick()?;
                rig.reap(64, |_, ticket, back, failed| {
                    ensure!(failed && ticket == command.ticket);
                    ensure!(Expected::touch(back) == defined);
                    Ok(())
                })?;
                ensure!(rig.io[0].completer.malformed() == malformed);
            }

            Ok(())
        });

        Ok(())
    }

    /// What is in flight at a stop comes back then, and what was completed before can be reaped.
    /// Nothing is mapped afterwards.
    #[test]
    fn stops_in_flight() -> Result {
        on_each!(Fate::after(100), TIGHT, |rig| {
            let live = rig.sim.counters().live;

            for turn in 0..4 {
                let mut expected = [KVec::new(), KVec::new()];

                for queue in [0, 1] {
                    for i in 0..TAGS.into() {
                        if i == 2 {
                            rig.device.then(Fate::after(1))?;
                        }

                        expected[queue].push(rig.submit(queue, (i + turn) % 4, 30)?, GFP_KERNEL)?;
                        rig.io[queue].submitter.kick()?;
                    }
                }
                rig.wait(2);
                ensure!(rig.session.stop() == StopOutcome::Stopped);

                let mut count = 0;

                rig.reap(64, |queue, ticket, back, _| {
                    count += 1;
                    ensure!(ticket == expected[queue][2].ticket);
                    expected[queue][2].check(back)
                })?;
                ensure!(count == 2 && rig.in_flight() == 2 * (u32::from(TAGS) - 1));

                rig.session.start()?;

                let mut outcome: Result = Ok(());

                rig.start(|queue, ticket, back| {
                    count += 1;
                    outcome = outcome.and_then(|()| {
                        ensure!(expected[queue].iter().any(|one| one.ticket == ticket));
                        ensure!(Expected::touch(back) <= 30);
                        Ok(())
                    });
                })?;
                outcome?;
                ensure!(count == 2 * u32::from(TAGS) && rig.in_flight() == 0);
                while rig.device.next_read().is_some() {}
            }

            // But for the pages of the pool.
            ensure!(rig.sim.counters().live <= live + 2);
            ensure!(rig.strays() == 0);
            Ok(())
        });

        Ok(())
    }

    /// A stop that proves nothing gives nothing back. What the device completes afterwards still
    /// comes back by its completion, and the rest when the device was disarmed.
    #[test]
    fn stops_without_proof() -> Result {
        for model in Model::ALL {
            sim::run(Script::new(model).fate(Fate::after(9)), |pdev, sim| {
                let device = Controller::new(sim)?;
                let stopper = Unsure(ControllerStopper(device.clone()));
                let session: Session<'_, ()> =
                    Session::new(pdev.as_ref(), stopper, Ok::<_, Error>(()))?;
                let mut rig = make(pdev, sim, &session, device, WIDE)?;

                session.start()?;
                rig.start(|_, _, _| {})?;
                rig.device.then(Fate::after(2))?;

                let first = rig.submit(0, 2, 50)?;
                let second = rig.submit(0, 3, 50)?;

                rig.kick()?;
                ensure!(session.stop() == StopOutcome::Unproven);
                ensure!(rig.io[0].drain(|_, _| {}).err() == Some(EBUSY));
                ensure!(rig.io[0].start(|_, _| {}).err() == Some(ESHUTDOWN));
                ensure!(rig.in_flight() == 2);
                // No more is to be expected, but it may come.
                ensure!(rig.done.is_stopped() && rig.io[0].completer.is_stopped());

                let told = rig.done.doorbells();

                rig.wait(3);
                ensure!(rig.reap(8, |_, _, back, _| first.check(back))? == 1);
                ensure!(rig.done.doorbells() == told && rig.in_flight() == 1);

                session.start()?;

                let mut back = None;

                rig.start(|_, ticket, _| back = Some(ticket))?;
                ensure!(back == Some(second.ticket) && rig.in_flight() == 0);
                Ok(())
            })?;
        }

        Ok(())
    }

    /// Queues that are dropped in flight are kept as a whole, and freed when the device has
    /// stopped.
    #[test]
    fn dropped_in_flight() -> Result {
        for model in Model::ALL {
            sim::run(Script::new(model).fate(Fate::after(3)), |pdev, sim| {
                let device = Controller::new(sim)?;
                let stopper = ControllerStopper(device.clone());
                let session: Session<'_, ()> =
                    Session::new(pdev.as_ref(), stopper, Ok::<_, Error>(()))?;
                let live = sim.counters().live;
                let before = quarantined();
                let mut rig = make(pdev, sim, &session, device.clone(), WIDE)?;

                session.start()?;
                rig.start(|_, _, _| {})?;

                for queue in [0, 1] {
                    for kind in 0..4 {
                        rig.submit(queue, kind, 50)?;
                    }
                }
                rig.kick()?;
                drop(rig);
                ensure!(quarantined() == before + 3);

                // The device goes on, with memory that is still mapped.
                sim.advance(10);
                ensure!(device.left()? == 0);
                ensure!(sim.counters().live > live);
                ensure!(session.stop() == StopOutcome::Stopped);
                while device.next_read().is_some() {}
                Ok(())
            })?;
        }

        Ok(())
    }

    /// Each allocation of coherent memory fails once: nothing is left behind.
    #[test]
    fn failures() -> Result {
        for k in 1..=6 {
            let mut failed = false;

            sim::run(Script::new(Model::Bounce), |pdev, sim| {
                let device = Controller::new(sim)?;
                let stopper = ControllerStopper(device.clone());
                let session: Session<'_, ()> =
                    Session::new(pdev.as_ref(), stopper, Ok::<_, Error>(()))?;

                sim.fail_alloc(k);

                let mut rig = match make(pdev, sim, &session, device, WIDE) {
                    Ok(rig) => rig,
                    Err(e) => {
                        failed = true;
                        ensure!(k <= 3 && e == ENOMEM);
                        return Ok(());
                    }
                };

                session.start()?;
                rig.start(|_, _, _| {})?;

                // A list takes a block of the pool.
                match rig.submit(0, 3, 50) {
                    Ok(_) => {}
                    Err(e) => {
                        failed = true;
                        ensure!(k == 4 && e == ENOMEM && rig.in_flight() == 0);
                        rig.submit(0, 3, 50)?;
                    }
                }
                rig.kick()?;
                ensure!(rig.reap(8, |_, _, _, _| Ok(()))? == 1);
                sim.fail_alloc(0);
                ensure!(session.stop() == StopOutcome::Stopped);
                while rig.device.next_read().is_some() {}
                Ok(())
            })?;

            ensure!(failed == (k <= 4));
        }

        Ok(())
    }

    /// A random walk, against a model of what is in flight.
    #[test]
    #[slow]
    fn model() -> Result {
        // CAST: Cut on purpose.
        let seed = Instant::<Monotonic>::now().as_nanos() as u64;

        for (i, model) in Model::ALL.into_iter().enumerate() {
            // CAST: Widening.
            Walk::run(model, seed.wrapping_add(2 * i as u64), false, MODEL_STEPS)?;
            Walk::run(
                model,
                seed.wrapping_add(2 * i as u64 + 1),
                false,
                MODEL_STEPS,
            )?;
        }

        Ok(())
    }

    /// The same with a device that lies: about lengths and tags, repeats itself, or says nothing.
    #[test]
    #[slow]
    fn lies() -> Result {
        // CAST: Cut on purpose.
        let seed = Instant::<Monotonic>::now().as_nanos() as u64;

        for (i, model) in Model::ALL.into_iter().enumerate() {
            // CAST: Widening.
            Walk::run(model, seed.wrapping_add(i as u64), true, MODEL_STEPS)?;
        }

        Ok(())
    }
}

/// As the one in it, but of whose device nobody knows whether it has stopped, unless it is
/// disarmed.
struct Unsure(ControllerStopper);

// SAFETY: As for what is in it. It proves less.
unsafe impl Quiesce for Unsure {
    fn device(&self) -> &Device {
        self.0.device()
    }

    fn limits(&self) -> Constraints {
        self.0.limits()
    }

    fn disarm(&mut self) -> Result {
        self.0.disarm()
    }

    fn quiesce(&self) -> StopOutcome {
        StopOutcome::Unproven
    }
}

/// How many steps a walk has.
const MODEL_STEPS: usize = 2_400;

/// Numbers that look random, and are the same for the same seed (xorshift64).
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;

        // CAST: Cut on purpose; then less than `n`.
        (self.0 >> 11) as usize % n
    }
}

/// A random walk.
struct Walk<'w, 'r, 'a> {
    rig: &'w mut Rig<'r, 'a>,
    random: Random,
    /// What is in flight in each queue.
    commands: [KVec<Expected>; 2],
    /// Whether the device lies.
    lies: bool,
    completed: usize,
}

impl Walk<'_, '_, '_> {
    fn run(model: Model, seed: u64, lies: bool, steps: usize) -> Result {
        let fate = Fate::within(6);
        let script = Script::new(model)
            .fate(if lies { fate.lies(4) } else { fate })
            .seed(seed)
            .weak_order(seed / 2 % 2 == 0);
        let len = if seed % 2 == 0 { TIGHT } else { WIDE };

        with_rig(script, len, |rig| {
            let mut walk = Walk {
                rig,
                random: Random(seed | 1),
                commands: [KVec::new(), KVec::new()],
                lies,
                completed: 0,
            };

            for step in 0..steps {
                walk.step().and_then(|()| walk.check()).inspect_err(|e| {
                    pr_err!(
                        "queue walk, {model:?}, lies: {lies}, seed {seed}: step {step}: {e:?}\n"
                    )
                })?;
            }

            pr_info!(
                "queue walk, {model:?}, lies: {lies}, seed {seed}: {} commands, {} strays\n",
                walk.completed,
                walk.rig.strays()
            );
            ensure!(walk.completed > steps / 8);
            ensure!(walk.rig.strays() > 0 || !lies);
            Ok(())
        })
    }

    fn step(&mut self) -> Result {
        match self.random.below(100) {
            0..40 => self.submit(),
            40..60 => self.rig.kick(),
            60..78 => {
                // CAST: Less than four.
                self.rig.wait(self.random.below(4) as u32);
                Ok(())
            }
            78..98 => self.reap(),
            _ => self.restart(),
        }
    }

    /// What is in flight is what was submitted and didn't come back. It is mapped, and besides it
    /// only three queues and the pages of the pool.
    fn check(&mut self) -> Result {
        let mut buffers = 0;

        for (io, commands) in self.rig.io.iter_mut().zip(&self.commands) {
            // CAST: Widening.
            ensure!(io.completer.in_flight() as usize == commands.len());
            ensure!(io.submitter.refresh() as usize + commands.len() == TAGS.into());
            buffers += commands
                .iter()
                .map(|command| [0, 1, 1, 3][command.kind])
                .sum::<usize>();
        }

        let live = self.rig.sim.counters().live;

        ensure!((buffers + 3..=buffers + 3 + 2).contains(&live));
        ensure!(self.rig.device.waits() == 0 || self.lies);
        ensure!(self.rig.strays() == 0 || self.lies);
        Ok(())
    }

    fn submit(&mut self) -> Result {
        let queue = self.random.below(2);
        let kind = self.random.below(4);
        let len = 1 + self.random.below(80);
        let is_full = self.commands[queue].len() == TAGS.into();

        match self.rig.submit(queue, kind, len) {
            Ok(command) => {
                ensure!(!is_full);
                // No other command in flight has this ticket, or its index.
                ensure!(self.commands[queue]
                    .iter()
                    .all(|other| other.ticket.index() != command.ticket.index()));
                self.commands[queue].push(command, GFP_KERNEL)?;
            }
            Err(e) => ensure!(is_full && e == EBUSY),
        }

        Ok(())
    }

    fn reap(&mut self) -> Result {
        let Self {
            rig,
            random,
            commands,
            lies,
            completed,
        } = self;
        // CAST: A few.
        let budget = random.below(12) as u32;
        let mut given = 0;

        let count = rig.reap(budget, |queue, ticket, back, _| {
            let at = commands[queue].iter().position(|one| one.ticket == ticket);
            let command = commands[queue].remove(at.ok_or(EIO)?).map_err(|_| EIO)?;

            given += 1;
            *completed += 1;

            if *lies {
                ensure!(Expected::touch(back) <= command.bytes());
                Ok(())
            } else {
                command.check(back)
            }
        })?;

        while rig.device.next_read().is_some() {}

        ensure!(count <= budget && given <= count && (*lies || given == count));
        Ok(())
    }

    /// Stops the device and starts it again.
    fn restart(&mut self) -> Result {
        ensure!(self.rig.session.stop() == StopOutcome::Stopped);

        if self.random.below(2) == 0 {
            self.reap()?;
        }

        self.rig.session.start()?;

        let Self { rig, commands, .. } = self;
        let mut outcome: Result = Ok(());

        rig.start(|queue, ticket, back| {
            outcome = outcome.and_then(|()| {
                let at = commands[queue].iter().position(|one| one.ticket == ticket);
                let command = commands[queue].remove(at.ok_or(EIO)?).map_err(|_| EIO)?;

                ensure!(Expected::touch(back) <= command.bytes());
                Ok(())
            });
        })?;

        outcome?;
        ensure!(commands.iter().all(|left| left.is_empty()));
        while rig.device.next_read().is_some() {}
        Ok(())
    }
}
