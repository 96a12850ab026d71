// SPDX-License-Identifier: GPL-2.0

//! KUnit tests on real devices: the first NVMe device of QEMU, taken from its driver meanwhile.

use super::{
    hardware::{
        self,
        IoCommand,
        MAX_BYTES, //
    },
    nvme::{
        Nvme,
        COMPLETIONS,
        TAGS, //
    },
    requests::Request,
    DEVICE,
    VENDOR, //
};
use kernel::{
    cpu::{
        nr_cpu_ids,
        CpuId, //
    },
    device::Core,
    dma::{
        fixture::{
            self,
            ensure, //
        },
        leaked,
        quarantined,
        queue::Either,
        StopOutcome,
        Streaming,
        ToDevice, //
    },
    irq,
    kunit,
    pci,
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Relaxed, //
        },
        Arc, //
    },
    time::{
        delay::udelay,
        Delta, //
    }, //
};

/// Whether the suite found a device.
static PRESENT: Atomic<i32> = Atomic::new(0);

/// Returns whether there is no device, and marks the test as skipped then.
fn is_absent() -> bool {
    let absent = PRESENT.load(Relaxed) == 0;

    if absent {
        kunit::skip("no NVMe device (QEMU: -device nvme)");
    }

    absent
}

/// Runs a test on a device that nobody else uses, and that the driver brought up.
fn with_nvme(mut body: impl FnMut(&Nvme<'_>) -> Result) -> Result {
    fn on<'a>(pdev: &pci::Device<Core<'a>>, body: &mut dyn FnMut(&Nvme<'_>) -> Result) -> Result {
        body(&Nvme::bring_up(pdev)?)
    }

    fixture::with_pci_device(VENDOR, DEVICE, hardware::LIMITS, |pdev| on(pdev, &mut body))
}

/// Bytes that differ from their neighbours and, by `seed`, from others.
fn pattern(len: usize, seed: usize) -> Result<KVec<u8>> {
    let mut vec = KVec::with_capacity(len.next_power_of_two().max(256), GFP_KERNEL)?;

    for i in 0..len {
        // CAST: Cut on purpose.
        vec.push((i * 13 + i / 251 + seed * 101) as u8, GFP_KERNEL)?;
    }

    Ok(vec)
}

fn blank(len: usize) -> Result<KVec<u8>> {
    let mut vec = KVec::with_capacity(len.next_power_of_two().max(256), GFP_KERNEL)?;

    vec.resize(len, 0xa5, GFP_KERNEL)?;
    Ok(vec)
}

/// Returns whether a buffer of that length can be mapped: one that bounces is 256 KiB long at most.
fn can_map(nvme: &Nvme<'_>, len: usize) -> Result<bool> {
    match Streaming::<_, ToDevice>::map(nvme.dma, blank(len)?) {
        Ok(_) => Ok(true),
        Err(_) if len > 256 << 10 => Ok(false),
        Err(e) => Err(e.error),
    }
}

/// Has as many commands in flight in a pair of queues as can be, of 1 to `blocks` blocks from
/// `first` on: writes in even turns, and in odd ones reads of what was written. Each must come back
/// as what it was.
fn take_turn(nvme: &Nvme<'_>, pair: usize, first: u64, blocks: usize, turn: usize) -> Result {
    let mut requests = KVec::<Request>::new();
    let mut commands = KVec::new();
    let len = |i: usize| 512 * (1 + i.checked_rem(blocks).unwrap_or(0));
    // CAST: Widening.
    let block = |i: usize| first + (blocks * i) as u64;

    for i in 0..usize::from(TAGS) {
        let command = if turn % 2 == 0 {
            let data = Streaming::map(nvme.dma, pattern(len(i), turn + i)?)?;

            (IoCommand::Write(block(i)), Some(Either::First(data)))
        } else {
            let data = Streaming::map(nvme.dma, blank(len(i))?)?;

            (IoCommand::Read(block(i)), Some(Either::Second(data)))
        };

        commands.push(command, GFP_KERNEL)?;
    }

    let before = nvme.doorbells(pair);

    nvme.submit(pair, commands, |request| {
        Ok(requests.push(request, GFP_KERNEL)?)
    })?;
    ensure!(nvme.doorbells(pair) == before + 1);

    for (i, request) in requests.into_iter().enumerate() {
        let (back, status) = nvme.wait(pair, request)?;

        ensure!(status == Some(0));

        match back {
            Some(Either::First(_)) => ensure!(turn % 2 == 0),
            Some(Either::Second(read)) => {
                ensure!(read.bytes() == &pattern(len(i), turn - 1 + i)?[..]);
            }
            None => return Err(EIO),
        }
    }

    Ok(())
}

/// Returns whether the device may be stopped while it works.
///
/// QEMU 7.2 ends then, now and again: it completes a command whose queue is gone. Since 10 it was
/// not seen to. The firmware of its devices has its version; older ones say "1.0".
fn may_be_interrupted(nvme: &Nvme<'_>) -> bool {
    let major = nvme
        .identity
        .firmware
        .iter()
        .map_while(|digit| char::from(*digit).to_digit(10))
        .fold(0_u32, |number, digit| {
            number.saturating_mul(10).saturating_add(digit)
        });

    major >= 10
}

/// Returns how many commands of all queues aren't over, as far as the driver knows.
fn in_flight(nvme: &Nvme<'_>) -> u32 {
    let io = nvme.session.io.iter();

    io.map(|io| io.lock().pair.commands.completer.in_flight())
        .sum()
}

/// Whether nothing is in flight, and the device has made nothing up.
fn ensure_idle(nvme: &Nvme<'_>) -> Result {
    ensure!(in_flight(nvme) == 0);

    for io in &nvme.session.io {
        ensure!(io.lock().pair.commands.completer.strays() == 0);
    }

    Ok(())
}

/// A handler that nobody calls, and that counts when it goes.
struct Counted(Arc<Atomic<u32>>);

impl irq::Handler for Counted {
    fn handle(&self) -> irq::IrqReturn {
        irq::IrqReturn::None
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.add(1, Relaxed);
    }
}

#[kunit_tests(dma_rs_nvme)]
mod cases {
    use super::*;

    #[suite_init]
    fn look_for_device() -> Result {
        let present = fixture::has_pci_device(VENDOR, DEVICE);

        PRESENT.store(present.into(), Relaxed);
        Ok(())
    }

    /// The device says what it is.
    #[test]
    fn identifies() -> Result {
        if is_absent() {
            return Ok(());
        }

        with_nvme(|nvme| {
            ensure!(nvme.identity.model.starts_with(b"QEMU NVMe Ctrl"));
            ensure!(nvme.identity.blocks >= 4096 && nvme.identity.block == 512);
            nvme.flush()
        })
    }

    /// Nothing is read or written before the device has said how long a block is, since it was
    /// disarmed last.
    #[test]
    fn asks_first() -> Result {
        if is_absent() {
            return Ok(());
        }

        with_nvme(|nvme| {
            nvme.write(3, pattern(512, 3)?)?;

            for _ in 0..2 {
                nvme.session.stop();
                nvme.bring_to_life()?;

                ensure!(nvme.read(3, blank(512)?).err() == Some(EAGAIN));
                ensure!(nvme.write(3, blank(512)?).err() == Some(EAGAIN));
                nvme.flush()?;

                ensure!(nvme.identify()? == nvme.identity);
                ensure!(nvme.read(3, blank(512)?)? == pattern(512, 3)?);
            }

            Ok(())
        })
    }

    /// When an answer counts.
    #[test]
    fn block_length() -> Result {
        hardware::check_block_length()
    }

    /// What is written is read again: in one page, in two, and in so many that there is a list of
    /// them; from the beginning of a page, and from within.
    #[test]
    fn round_trip() -> Result {
        if is_absent() {
            return Ok(());
        }

        with_nvme(|nvme| {
            let lens = [1, 8, 9, 16, 17, 24, 100, 256, 257, MAX_BYTES / 512];
            let mut mapped = 0;

            ensure!(nvme.identity.max_bytes == MAX_BYTES);

            for (seed, blocks) in lens.into_iter().enumerate() {
                // CAST: Widening.
                let first = 300 * seed as u64;

                if !can_map(nvme, 512 * blocks)? {
                    continue;
                }

                mapped += 1;

                let written = nvme.write(first, pattern(512 * blocks, seed)?)?;

                ensure!(written == pattern(512 * blocks, seed)?);
            }

            for (seed, blocks) in lens.into_iter().enumerate() {
                // CAST: Widening.
                let first = 300 * seed as u64;

                if !can_map(nvme, 512 * blocks)? {
                    continue;
                }

                ensure!(nvme.read(first, blank(512 * blocks)?)? == pattern(512 * blocks, seed)?);

                // Small buffers don't begin with a page.
                let last = first + blocks as u64 - 1;
                let end = nvme.read(last, blank(512)?)?;

                ensure!(end[..] == pattern(512 * blocks, seed)?[512 * (blocks - 1)..]);
            }

            ensure!(mapped >= lens.len() - 1);
            ensure_idle(nvme)
        })
    }

    /// As many in flight as can be, in each pair of queues, for some turns.
    #[test]
    fn many_in_flight() -> Result {
        if is_absent() {
            return Ok(());
        }

        with_nvme(|nvme| {
            for turn in 0..4 {
                for pair in 0..nvme.pairs() {
                    // CAST: Widening.
                    take_turn(nvme, pair, 2000 * pair as u64, 20, turn)?;
                }
            }

            ensure_idle(nvme)
        })
    }

    /// One more than can be is refused, and the others are carried out.
    #[test]
    fn full() -> Result {
        if is_absent() {
            return Ok(());
        }

        with_nvme(|nvme| {
            let mut requests = KVec::<Request>::new();
            let commands = (0..=TAGS).map(|_| (IoCommand::Flush, None));
            let outcome = nvme.submit(0, commands, |request| {
                Ok(requests.push(request, GFP_KERNEL)?)
            });

            ensure!(outcome == Err(EBUSY) && requests.len() == usize::from(TAGS));

            for request in requests {
                ensure!(nvme.wait(0, request)?.1 == Some(0));
            }

            ensure!(nvme.submit(nvme.pairs(), [], |_| Ok(())) == Err(EINVAL));
            ensure_idle(nvme)
        })
    }

    /// What came of a command is kept until somebody waits for it, though its tag was used again
    /// since. What was abandoned makes room.
    #[test]
    fn waits_late() -> Result {
        if is_absent() {
            return Ok(());
        }

        with_nvme(|nvme| {
            let mut late = KVec::<Request>::new();
            let mut given_up = KVec::<Request>::new();
            let flush = || (IoCommand::Flush, None);

            nvme.write(0, pattern(512, 5)?)?;

            let data = Streaming::map(nvme.dma, blank(512)?)?;
            let read = (IoCommand::Read(0), Some(Either::Second(data)));

            nvme.submit(0, [read], |request| Ok(late.push(request, GFP_KERNEL)?))?;

            for _ in 0..2 * TAGS {
                let mut requests = KVec::<Request>::new();

                nvme.submit(0, [flush()], |request| {
                    Ok(requests.push(request, GFP_KERNEL)?)
                })?;
                ensure!(nvme.wait(0, requests[0])?.1 == Some(0));
            }

            let all = nvme.submit(0, (0..TAGS).map(|_| flush()), |request| {
                Ok(given_up.push(request, GFP_KERNEL)?)
            });

            // The first one has its place.
            ensure!(all == Err(EBUSY) && given_up.len() == usize::from(TAGS) - 1);

            let Some(Either::Second(read)) = nvme.wait(0, late[0])?.0 else {
                return Err(EIO);
            };

            ensure!(read.bytes() == &pattern(512, 5)?[..]);

            for request in given_up {
                nvme.abandon(0, request);
            }

            for turn in 0..2 {
                let mut requests = KVec::<Request>::new();

                for _ in 0..usize::from(TAGS) {
                    let mut patience = 10_000;

                    while let Err(e) = nvme.submit(0, [flush()], |request| {
                        Ok(requests.push(request, GFP_KERNEL)?)
                    }) {
                        ensure!(e == EBUSY && turn == 0 && patience > 0);
                        patience -= 1;
                        udelay(Delta::from_micros(100));
                    }
                }

                // It was waited for, and its place is somebody else's: in flight, or over.
                nvme.abandon(0, late[0]);

                while let Some(request) = requests.pop() {
                    ensure!(nvme.wait(0, request)?.1 == Some(0));
                    nvme.abandon(0, late[0]);
                }
            }

            ensure_idle(nvme)
        })
    }

    /// Two threads, each with a pair of queues, until these have wrapped ten times.
    #[test]
    fn two_threads() -> Result {
        if is_absent() {
            return Ok(());
        }

        with_nvme(|nvme| {
            let last = nvme.pairs() - 1;
            // CAST: Widening.
            let turns = 10 * COMPLETIONS as usize / usize::from(TAGS);
            let work = |pair: usize, first: u64| {
                (0..2 * turns.div_ceil(2))
                    .try_for_each(|turn| take_turn(nvme, pair, first, 3, turn))
            };

            if last == 0 {
                kunit::skip("needs two CPUs");
                return Ok(());
            }

            fixture::at_once(|| work(0, 0), || work(last, 10_000))?;
            ensure!(nvme.resets() == 0);
            ensure_idle(nvme)
        })
    }

    /// Each pair of queues has an interrupt of its own.
    #[test]
    fn own_interrupts() -> Result {
        if is_absent() {
            return Ok(());
        }

        with_nvme(|nvme| {
            let pairs = nvme.pairs();

            ensure!(pairs == (nr_cpu_ids() as usize).min(4));
            ensure!(nvme.pair_here() < pairs);

            // With legacy interrupts only, there is none.
            if nvme.vectors == 0 {
                return nvme.flush();
            }

            ensure!(nvme.vectors == 1 + pairs);

            for pair in 0..pairs {
                ensure!(nvme.pair_of.iter().any(|of| usize::from(*of) == pair));

                let counts = || (0..pairs).map(|one| nvme.interrupts(one));
                let mut before = KVec::new();

                for count in counts() {
                    before.push(count, GFP_KERNEL)?;
                }

                // A thread may find what it waits for before the interrupt comes.
                for turn in 0..400 {
                    take_turn(nvme, pair, 0, 1, turn)?;

                    if before.get(pair) != Some(&nvme.interrupts(pair)) {
                        break;
                    }
                }

                for (one, (now, before)) in counts().zip(before).enumerate() {
                    ensure!((now > before) == (one == pair));
                }
            }

            Ok(())
        })
    }

    /// A device has each of its vectors once, gives each a handler once, and none has one when it
    /// is unbound.
    #[test]
    fn vectors() -> Result {
        if is_absent() {
            return Ok(());
        }

        fn on<'a>(pdev: &pci::Device<Core<'a>>, gone: &Arc<Atomic<u32>>) -> Result<bool> {
            let (all, none) = (pci::IrqTypes::all(), pci::IrqTypes::default());
            let many = none.with(pci::IrqType::MsiX);
            let anywhere = pci::IrqSpread::Anywhere;
            let spread = pci::IrqSpread::OverCpus { but_first: 1 };
            let counted = || Ok(Counted(gone.clone()));
            const NAME: &CStr = c"dma_rs_nvme_test";

            // Neither a refusal nor a failure takes what there is.
            #[allow(clippy::reversed_empty_ranges, reason = "refused")]
            for (count, spread) in [(2..=1, anywhere), (0..=0, anywhere), (0..=3, spread)] {
                let refused = pdev.irq_vectors(count.clone(), none, spread).err();

                ensure!(refused == Some(if count == (0..=3) { ENOSPC } else { EINVAL }));
            }

            let too_few = pci::IrqSpread::OverCpus { but_first: 2 };

            ensure!(pdev.irq_vectors(1..=3, all, too_few).err() == Some(EINVAL));
            ensure!(pdev.irq_vectors(2000..=3000, all, anywhere).err().is_some());

            let Ok(mut vectors) = pdev.irq_vectors(3..=3, many, spread) else {
                // With legacy interrupts only.
                let mut vectors = pdev.irq_vectors(1..=4, all, spread)?;
                let only = vectors.next().ok_or(EIO)?;

                ensure!(vectors.next().is_none());
                ensure!(matches!(vectors.irq_type(), pci::IrqType::Intx));
                only.request(pdev, NAME, counted())?;
                return Ok(false);
            };

            ensure!(vectors.len() == 3 && matches!(vectors.irq_type(), pci::IrqType::MsiX));
            ensure!(pdev.irq_vectors(1..=1, all, anywhere).err() == Some(EBUSY));
            ensure!(pdev.request_irq(all, NAME, counted()).err() == Some(EBUSY));

            let mut next = || vectors.next().ok_or(EIO);
            let (first, second, third) = (next()?, next()?, next()?);

            ensure!(next().is_err());
            ensure!([first.index(), second.index(), third.index()] == [0, 1, 2]);

            // Each CPU has one of those that are spread.
            for cpu in (0..nr_cpu_ids()).filter_map(CpuId::from_u32) {
                let serves =
                    |one: &pci::FreeVector<'a>| one.cpus(pdev).is_some_and(|cpus| cpus.test(cpu));

                ensure!(nr_cpu_ids() == 1 || serves(&second) != serves(&third));
            }

            first.request(pdev, NAME, counted())?;
            // The second one never gets a handler.
            third.request(pdev, NAME, counted())?;
            Ok(true)
        }

        for _ in 0..2 {
            let gone = Arc::new(Atomic::new(0), GFP_KERNEL)?;
            let mut expected = 0;

            fixture::with_pci_device(VENDOR, DEVICE, hardware::LIMITS, |pdev| {
                let several = on(pdev, &gone)?;
                // `request_irq()` was refused once.
                let refused = gone.load(Relaxed);

                expected = refused + if several { 2 } else { 1 };
                ensure!(refused == several.into());
                Ok(())
            })?;

            ensure!(expected > 0 && gone.load(Relaxed) == expected);
        }

        Ok(())
    }

    /// A device that doesn't answer in time is reset, and then goes on.
    #[test]
    fn time_out() -> Result {
        if is_absent() {
            return Ok(());
        }

        let (kept, lost) = (quarantined(), leaked());

        with_nvme(|nvme| {
            nvme.write(5, pattern(512, 5)?)?;

            for turn in 0..3 {
                ensure!(nvme.resets() == turn);
                // There is no such event.
                ensure!(nvme.await_event(3) == Err(ETIMEDOUT));
                ensure!(nvme.resets() == turn + 1);

                // Who comes late does nothing.
                nvme.reset(turn)?;
                ensure!(nvme.resets() == turn + 1);
                ensure!(nvme.read(5, blank(512)?)? == pattern(512, 5)?);
            }

            ensure_idle(nvme)
        })?;

        ensure!(quarantined() == kept && leaked() == lost);
        Ok(())
    }

    /// A device whose reset fails is reset by whoever comes next.
    #[cfg(all(CONFIG_FAILSLAB, not(CONFIG_KCSAN)))]
    #[test]
    fn failed_resets() -> Result {
        if is_absent() {
            return Ok(());
        }

        with_nvme(|nvme| {
            let mut failures = 0;

            nvme.write(6, pattern(512, 6)?)?;
            fixture::faults::each_allocation(|fault| {
                let resets = nvme.resets();
                let reset = fault.strike(|| nvme.reset(resets))?;

                failures += u32::from(reset.is_err());
                ensure!(nvme.resets() == resets + u32::from(reset.is_ok()));
                ensure!(nvme.read(6, blank(512)?)? == pattern(512, 6)?);
                ensure!(nvme.resets() == resets + 1);
                Ok(())
            })?;

            ensure!(failures > 0);
            ensure_idle(nvme)
        })
    }

    /// Without messages for interrupts, nobody would quiet the pin.
    #[test]
    fn without_vectors() -> Result {
        if is_absent() {
            return Ok(());
        }

        with_nvme(|nvme| {
            ensure!(nvme.vectors > 0 || nvme.control.is_pin_masked());
            nvme.reset(nvme.resets())?;
            ensure!(nvme.vectors > 0 || nvme.control.is_pin_masked());
            Ok(())
        })
    }

    /// A device that works is told before it is stopped.
    #[test]
    fn says_goodbye() -> Result {
        if is_absent() {
            return Ok(());
        }

        with_nvme(|nvme| {
            let before = nvme.control.goodbyes();

            nvme.write(9, pattern(512, 9)?)?;
            ensure!(nvme.session.stop() == StopOutcome::Stopped);
            ensure!(nvme.control.goodbyes() == before + 1);

            // It is at rest.
            ensure!(nvme.session.stop() == StopOutcome::Stopped);
            ensure!(nvme.control.goodbyes() == before + 1);

            nvme.start()?;
            ensure!(nvme.read(9, blank(512)?)? == pattern(512, 9)?);
            ensure!(nvme.session.stop() == StopOutcome::Stopped);
            ensure!(nvme.control.goodbyes() == before + 2);
            Ok(())
        })
    }

    /// Commands that the driver can't make, and one that the device refuses.
    #[test]
    fn refused() -> Result {
        if is_absent() {
            return Ok(());
        }

        with_nvme(|nvme| {
            let read =
                |len| Ok::<_, Error>(Some(Either::Second(Streaming::map(nvme.dma, blank(len)?)?)));
            let write =
                |len| Ok::<_, Error>(Some(Either::First(Streaming::map(nvme.dma, blank(len)?)?)));

            for (command, data) in [
                (IoCommand::Read(0), None),
                (IoCommand::Read(0), read(511)?),
                (IoCommand::Read(0), read(513)?),
                // The other way round.
                (IoCommand::Read(0), write(512)?),
                (IoCommand::Write(0), read(512)?),
                (IoCommand::Flush, write(512)?),
            ] {
                ensure!(nvme.execute(command, data).err() == Some(EINVAL));
            }

            if can_map(nvme, MAX_BYTES + 512)? {
                let long = read(MAX_BYTES + 512)?;

                ensure!(nvme.execute(IoCommand::Read(0), long).err() == Some(EINVAL));
            }

            // Beyond the end; the buffer comes back, and nothing in it is believed.
            for pair in 0..nvme.pairs() {
                let beyond = IoCommand::Read(nvme.identity.blocks);
                let mut request = None;

                nvme.submit(pair, [(beyond, read(512)?)], |submitted| {
                    request = Some(submitted);
                    Ok(())
                })?;

                let (back, status) = nvme.wait(pair, request.ok_or(EIO)?)?;
                let Some(Either::Second(buf)) = back else {
                    return Err(EIO);
                };

                ensure!(status.is_some_and(|status| status != 0) && buf.bytes().is_empty());
            }

            ensure!(nvme.read(0, blank(512)?).is_ok());
            ensure_idle(nvme)
        })
    }

    /// After a stop, nothing is told to the device; after a start, all is as before.
    #[test]
    fn stops_and_starts() -> Result {
        if is_absent() {
            return Ok(());
        }

        let (kept, lost) = (quarantined(), leaked());

        with_nvme(|nvme| {
            for turn in 0..3 {
                nvme.write(turn, pattern(512, 7)?)?;
                ensure!(nvme.session.stop() == StopOutcome::Stopped);
                ensure!(nvme.read(turn, blank(512)?).err() == Some(ESHUTDOWN));
                ensure!(nvme.control.enable(true) == Err(ESHUTDOWN));

                nvme.start()?;
                ensure!(nvme.read(turn, blank(512)?)? == pattern(512, 7)?);

                // Somebody else has started it.
                nvme.resume()?;
                ensure!(nvme.start() == Err(EBUSY));
                ensure!(nvme.read(turn, blank(512)?)? == pattern(512, 7)?);

                // And once more, in one.
                nvme.session.restart()?;
                nvme.start()?;
                ensure!(nvme.read(turn, blank(512)?)? == pattern(512, 7)?);
            }

            Ok(())
        })?;

        ensure!(quarantined() == kept && leaked() == lost);
        Ok(())
    }

    /// The device is stopped a hundred times with as many reads in flight as can be: each buffer
    /// comes back, with what was to be read or with nothing, and isn't written to afterwards.
    ///
    /// The device may be done with some or all of them, which the driver doesn't know then. Where
    /// it can't stand to be stopped in between, all are over before.
    #[test]
    fn stops_in_flight() -> Result {
        if is_absent() {
            return Ok(());
        }

        let (kept, lost) = (quarantined(), leaked());

        with_nvme(|nvme| {
            let len = 8 << 10;
            let written = pattern(len, 3)?;
            let untouched = KVec::from_elem(0x3c, len, GFP_KERNEL)?;
            let interrupted = may_be_interrupted(nvme);
            let pair = nvme.pairs() - 1;
            let mut before: KVec<KVec<u8>> = KVec::new();

            nvme.write(0, pattern(len, 3)?)?;

            for turn in 0..100 {
                let mut requests = KVec::<Request>::new();
                let mut reads = KVec::new();

                for _ in 0..TAGS {
                    let data = Streaming::map(nvme.dma, blank(len)?)?;

                    reads.push((IoCommand::Read(0), Some(Either::Second(data))), GFP_KERNEL)?;
                }

                nvme.submit(pair, reads, |request| {
                    Ok(requests.push(request, GFP_KERNEL)?)
                })?;

                let mut outcomes = KVec::new();

                if !interrupted {
                    for request in requests.drain_all() {
                        outcomes.push(nvme.wait(pair, request)?, GFP_KERNEL)?;
                    }
                }

                // Sooner or later.
                udelay(Delta::from_micros(30 * (turn % 10)));
                ensure!(in_flight(nvme) == if interrupted { TAGS.into() } else { 0 });
                ensure!(nvme.session.stop() == StopOutcome::Stopped);

                // Those of the turn before had time to be written to.
                for buf in before.drain_all() {
                    ensure!(buf == untouched);
                }

                nvme.start()?;

                for request in requests {
                    outcomes.push(nvme.wait(pair, request)?, GFP_KERNEL)?;
                }

                for (back, status) in outcomes {
                    let Some(Either::Second(buf)) = back else {
                        return Err(EIO);
                    };

                    if status == Some(0) {
                        ensure!(buf.bytes() == &written[..]);
                    } else {
                        ensure!(buf.bytes().is_empty());
                    }

                    let mut buf = buf.unmap();

                    buf.fill(0x3c);
                    before.push(buf, GFP_KERNEL)?;
                }

                ensure_idle(nvme)?;
            }

            Ok(())
        })?;

        ensure!(quarantined() == kept && leaked() == lost);
        Ok(())
    }
}
