// SPDX-License-Identifier: GPL-2.0

//! KUnit tests on real devices: the first edu of the machine, taken from the driver meanwhile.
//!
//! The device takes 100 ms for a transfer, by its own clock, and a busy host runs the guest when it
//! likes. So two things are not to be relied on: that a thread which slept for a moment comes
//! before the end of a transfer, and that one which slept for long comes after it. A test that
//! needs the one finds out whether it was so, and tries again if not; a test that needs the other
//! waits for the device, with a time-out that only a fault reaches.

use super::{
    edu::{
        Completion,
        Edu,
        Handle,
        Stats,
        TIMEOUT, //
    },
    engine::{
        self,
        EduEngine,
        Offset, //
    },
    module_parameters,
    regs::MEMORY_SIZE,
    DEVICE,
    VENDOR, //
};
use kernel::{
    device::{
        Bound,
        Core,
        Device, //
    },
    devres,
    dma::{
        fixture::{
            self,
            ensure, //
        },
        leaked,
        quarantined,
        transfer::TransferSlot,
        Constraints,
        DmaMask,
        FromDevice,
        Mapper,
        Quiesce,
        Session,
        StopOutcome,
        Streaming,
        StreamingBox,
        ToDevice, //
    },
    dma_fence::Fence,
    error::ErrorWith,
    fmt,
    io::Io,
    irq::{
        self,
        Handler,
        IrqReturn, //
    },
    kunit,
    new_mutex,
    pci,
    prelude::*,
    str::CString,
    sync::{
        aref::ARef,
        atomic::{
            Atomic,
            Relaxed, //
        },
        Arc,
        Mutex, //
    },
    time::{
        delay::fsleep,
        Delta,
        Instant,
        Monotonic, //
    }, //
};

const TICK: Delta = Delta::from_millis(2);
const SOON: Delta = Delta::from_millis(20);
/// For what is to happen.
const LONG: Delta = Delta::from_secs(10);
/// Before this, the device isn't done with what it was told to do.
const UNDERWAY: Delta = Delta::from_millis(90);
/// After this, the device has most likely done what it was told to: it would show what it must not
/// have done. What it must have done is waited for otherwise.
const OVER: Delta = Delta::from_millis(200);
/// How often to try what a busy host may come too late for.
const TRIES: usize = 50;

/// Whether the suite found a device.
static PRESENT: Atomic<i32> = Atomic::new(0);

/// Returns whether there is no device, and marks the test as skipped then.
fn is_absent() -> bool {
    let absent = PRESENT.load(Relaxed) == 0;

    if absent {
        kunit::skip("no edu device (QEMU: -device edu)");
    }

    absent
}

/// Runs a test on a device that nobody else uses, and that is at rest before and after.
fn with_device(body: impl FnMut(&pci::Device<Core<'_>>) -> Result) -> Result {
    let constraints = Constraints::new(DmaMask::try_new(module_parameters::dma_bits.value())?);

    // CAST: The ID is 16 bits wide.
    fixture::with_pci_device(VENDOR, DEVICE as u16, constraints, body)
}

/// Runs a test on a device that the driver brought up, with an interrupt and by polling.
fn with_edu(mut body: impl FnMut(&Handle) -> Result) -> Result {
    for completion in [Completion::Interrupt, Completion::Polling] {
        with_device(|pdev| body(&Edu::bring_up(pdev, completion, crate::constraints()?)?))?;
    }

    Ok(())
}

/// Bytes that differ from their neighbours and, by `seed`, from those of the test before.
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

#[kunit_tests(dma_rs_edu)]
mod cases {
    use super::*;

    #[suite_init]
    fn look_for_device() -> Result {
        // CAST: The ID is 16 bits wide.
        let present = fixture::has_pci_device(VENDOR, DEVICE as u16);

        PRESENT.store(present.into(), Relaxed);
        Ok(())
    }

    /// Every byte of the device's memory, out and back, at several offsets and lengths.
    #[test]
    fn round_trip() -> Result {
        if is_absent() {
            return Ok(());
        }

        with_edu(|edu| {
            for (seed, (offset, len)) in [
                (0, MEMORY_SIZE),
                (0, 1),
                (MEMORY_SIZE - 1, 1),
                (1, 63),
                (100, 2048),
            ]
            .into_iter()
            .enumerate()
            {
                let out = edu.try_access_with(|edu| {
                    edu.write(offset, pattern(len, seed)?).map_err(Error::from)
                })??;
                let back =
                    edu.try_access_with(|edu| edu.read(offset, blank(len)?).map_err(Error::from))??;

                ensure!(out == pattern(len, seed)?);
                ensure!(back == out);
            }

            Ok(())
        })
    }

    /// Longer than the device can take at once.
    #[test]
    #[slow]
    fn copy_in_pieces() -> Result {
        if is_absent() {
            return Ok(());
        }

        with_edu(|edu| {
            let len = 2 * MEMORY_SIZE + 500;
            let (source, copy) = edu.try_access_with(|edu| {
                edu.copy(pattern(len, 9)?, blank(len)?).map_err(Error::from)
            })??;

            ensure!(source == pattern(len, 9)?);
            ensure!(copy == source);
            Ok(())
        })
    }

    /// What doesn't suit the device is refused, and comes back as it was.
    #[test]
    #[slow]
    fn refusals() -> Result {
        if is_absent() {
            return Ok(());
        }

        with_edu(|edu| {
            for (offset, len) in [
                (0, 0),
                (MEMORY_SIZE, 1),
                (0, MEMORY_SIZE + 1),
                (1, MEMORY_SIZE),
                (usize::MAX, 16),
            ] {
                let refused = edu
                    .try_access_with(|edu| Ok::<_, Error>(edu.write(offset, pattern(len, 1)?)))??;

                match refused {
                    Err(e) => {
                        ensure!(e.error == EINVAL);
                        ensure!(e.value == Some(pattern(len, 1)?));
                    }
                    Ok(_) => return Err(EINVAL),
                }
            }

            // The buffers differ in length.
            let refused =
                edu.try_access_with(|edu| Ok::<_, Error>(edu.copy(blank(10)?, blank(11)?)))??;
            ensure!(matches!(refused, Err(ref e) if e.error == EINVAL));

            // Longer than a mapping can be, where there is a limit.
            let refused = edu.try_access_with(|edu| {
                Ok::<_, Error>(edu.write(0, KVec::zeroed(4 << 20, GFP_KERNEL)?))
            })??;
            match refused {
                Err(e) => ensure!(e.error == EOVERFLOW || e.error == EINVAL),
                Ok(_) => return Err(EINVAL),
            }

            // And all is well afterwards.
            edu.try_access_with(|edu| edu.write(0, pattern(10, 1)?).map_err(Error::from))??;
            Ok(())
        })
    }

    /// A stopped device takes no work, and gives it back; started again it does.
    #[test]
    fn stopped() -> Result {
        if is_absent() {
            return Ok(());
        }

        with_device(|pdev| {
            let edu = Edu::bring_up(pdev, Completion::Polling, crate::constraints()?)?;

            ensure!(edu.try_access_with(|edu| edu.stop())? == StopOutcome::Stopped);
            let refused =
                edu.try_access_with(|edu| Ok::<_, Error>(edu.write(0, pattern(10, 1)?)))??;
            ensure!(matches!(refused, Err(e) if e.error == ESHUTDOWN && e.value.is_some()));

            edu.try_access_with(|edu| edu.reset())??;
            edu.try_access_with(|edu| edu.write(0, pattern(10, 1)?).map_err(Error::from))??;
            Ok(())
        })
    }

    /// The handle outlives the device, and says so.
    #[test]
    fn unbound() -> Result {
        if is_absent() {
            return Ok(());
        }

        let mut kept = None;

        with_device(|pdev| {
            kept = Some(Edu::bring_up(
                pdev,
                Completion::Interrupt,
                crate::constraints()?,
            )?);
            Ok(())
        })?;

        ensure!(
            kept.is_some_and(|edu| matches!(edu.try_access_with(|_| ()), Err(e) if e == ENODEV))
        );
        Ok(())
    }

    /// The hardware, without the driver around it.
    type Bare<'a> = Session<'a, Mutex<TransferSlot<'a, EduEngine<'a>, KVec<u8>>>>;

    /// Makes the hardware ready, but doesn't start it.
    fn prepare<'a>(pdev: &pci::Device<Core<'a>>) -> Result<(Mapper<'a>, Bare<'a>)> {
        pdev.enable_device_mem()?;

        let dma = Mapper::get(pdev.bound().as_ref())?;
        let parts = engine::claim(pdev, crate::constraints()?)?;
        let slot = TransferSlot::new(dma, parts.engine)?;

        Ok((
            dma,
            Session::new(pdev.as_ref(), parts.stopper, new_mutex!(slot))?,
        ))
    }

    /// Brings the hardware up.
    fn bring_up<'a>(pdev: &pci::Device<Core<'a>>) -> Result<(Mapper<'a>, Bare<'a>)> {
        let (dma, bare) = prepare(pdev)?;

        bare.start()?;
        Ok((dma, bare))
    }

    /// Fills the device's memory with what no buffer has.
    fn fill<'a>(dma: Mapper<'a>, bare: &Bare<'a>) -> Result {
        let out = Streaming::<_, ToDevice>::map(dma, pattern(MEMORY_SIZE, 5)?)?;

        bare.lock()
            .start(out, 0..MEMORY_SIZE, Offset(0))?
            .wait_polling(TICK, LONG)
            .map(drop)
    }

    /// Has the device write to a buffer, and stops it after `pause`, in the middle of that.
    fn cut<'a>(dma: Mapper<'a>, bare: &Bare<'a>, len: usize, pause: Delta) -> Result {
        // A busy host comes too late.
        for _ in 0..TRIES {
            let back = Streaming::<_, FromDevice>::map(dma, blank(len)?)?;
            let start = Instant::<Monotonic>::now();
            let _ = bare.lock().start(back, 0..len, Offset(0))?;

            fsleep(pause);
            ensure!(bare.stop() == StopOutcome::Stopped);

            if start.elapsed() < UNDERWAY {
                return Ok(());
            }

            bare.start()?;
        }

        Err(ETIMEDOUT)
    }

    /// The end of a transfer raises an interrupt, without which waiting would take its whole time.
    #[test]
    fn interrupt_comes() -> Result {
        if is_absent() {
            return Ok(());
        }

        with_device(|pdev| {
            pdev.enable_device_mem()?;

            let dma = Mapper::get(pdev.bound().as_ref())?;
            let mut parts = engine::claim(pdev, crate::constraints()?)?;
            let waiters = Arc::pin_init(kernel::new_wait_queue!("dma_rs::tests"), GFP_KERNEL)?;
            let types = pci::IrqTypes::default()
                .with(pci::IrqType::Msi)
                .with(pci::IrqType::Intx);
            let waker = parts.interrupts.wake(waiters.clone());

            parts.engine.interrupt = true;

            let slot = TransferSlot::new(dma, parts.engine)?;
            let bare: Bare<'_> = Session::new(pdev.as_ref(), parts.stopper, new_mutex!(slot))?;

            pdev.request_irq(types, c"dma_rs_edu_test", Ok(waker))?;
            bare.start()?;

            let start = Instant::<Monotonic>::now();
            let out = Streaming::<_, ToDevice>::map(dma, blank(64)?)?;

            drop(
                bare.lock()
                    .start(out, 0..64, Offset(0))?
                    .wait(&waiters, Delta::from_secs(20))?,
            );
            ensure!(start.elapsed() < Delta::from_secs(20));
            Ok(())
        })
    }

    /// A device has one allocation of interrupt vectors, of whatever type: freeing a second one
    /// would take those of the first from under its handler.
    #[test]
    fn one_allocation_of_vectors() -> Result {
        if is_absent() {
            return Ok(());
        }

        struct Nothing;

        impl irq::Handler for Nothing {
            fn handle(&self) -> irq::IrqReturn {
                irq::IrqReturn::None
            }
        }

        const NAME: &CStr = c"dma_rs_edu_test";

        let (all, none) = (pci::IrqTypes::all(), pci::IrqTypes::default());
        let intx = none.with(pci::IrqType::Intx);

        with_device(|pdev| {
            let dev = pdev.bound();

            for (first, second) in [(intx, all), (all, intx), (all, all), (intx, intx)] {
                let vectors = dev.alloc_irq_vectors(1, 1, first)?;
                let refused = dev.alloc_irq_vectors(1, 1, second).map(drop);
                let requested = pdev.request_irq(second, NAME, Ok(Nothing)).map(drop);

                drop(vectors);
                ensure!((refused, requested) == (Err(EBUSY), Err(EBUSY)));
            }

            // Neither a refusal nor a failure takes the only one.
            ensure!(dev.alloc_irq_vectors(1, 1, none).is_err());
            pdev.request_irq(all, NAME, Ok(Nothing))?;
            ensure!(dev.alloc_irq_vectors(1, 1, intx).map(drop) == Err(EBUSY));
            Ok(())
        })?;

        // It is free when the device is unbound, though its owner was forgotten.
        with_device(|pdev| {
            core::mem::forget(pdev.bound().alloc_irq_vectors(1, 1, intx)?);
            Ok(())
        })?;
        with_device(|pdev| pdev.request_irq(all, NAME, Ok(Nothing)).map(drop))
    }

    /// A buffer that stays mapped: what the CPU writes between two transfers reaches the device,
    /// and what the device writes reaches the CPU, each time.
    #[test]
    #[slow]
    fn kept_mapping() -> Result {
        if is_absent() {
            return Ok(());
        }

        with_device(|pdev| {
            let (dma, bare) = bring_up(pdev)?;
            let mut slot = bare.lock();
            let mut out = StreamingBox::<_, ToDevice>::map(dma, blank(512)?)?;
            let mut back = StreamingBox::<_, FromDevice>::map(dma, blank(512)?)?;

            for seed in 0..3 {
                out.bytes_mut().copy_from_slice(&pattern(512, seed)?);
                out = slot
                    .start(out.submit(), 0..512, Offset(0))?
                    .wait_polling(TICK, LONG)?;
                back = slot
                    .start(back.submit(), 0..512, Offset(0))?
                    .wait_polling(TICK, LONG)?;

                ensure!(back.bytes() == &*pattern(512, seed)?);
            }

            ensure!(back.unmap() == pattern(512, 2)?);
            Ok(())
        })
    }

    /// A partial transfer changes its range only, and shows its range only.
    #[test]
    fn partial_transfer() -> Result {
        if is_absent() {
            return Ok(());
        }

        with_device(|pdev| {
            let (dma, bare) = bring_up(pdev)?;
            let mut slot = bare.lock();
            let out = Streaming::<_, ToDevice>::map(dma, pattern(1024, 3)?)?;

            drop(
                slot.start(out, 0..1024, Offset(0))?
                    .wait_polling(TICK, LONG)?,
            );

            let back = Streaming::<_, FromDevice>::map(dma, blank(1024)?)?;
            let back = slot
                .start(back, 256..512, Offset(256))?
                .wait_polling(TICK, LONG)?;
            ensure!(back.bytes() == &pattern(1024, 3)?[256..512]);

            let back = back.unmap();
            ensure!(back[256..512] == pattern(1024, 3)?[256..512]);
            ensure!(back[..256] == blank(256)? && back[512..] == blank(512)?);
            Ok(())
        })
    }

    /// The device is slower than the driver has patience: the buffer stays where the device can
    /// have it, and comes back when it is done.
    #[test]
    fn time_out_and_late_completion() -> Result {
        if is_absent() {
            return Ok(());
        }

        with_device(|pdev| {
            let (dma, bare) = bring_up(pdev)?;
            let mut slot = bare.lock();
            let before = quarantined();
            let out = Streaming::<_, ToDevice>::map(dma, pattern(600, 4)?)?;

            drop(
                slot.start(out, 0..600, Offset(0))?
                    .wait_polling(TICK, LONG)?,
            );

            let mut tries = 0..TRIES;

            loop {
                tries.next().ok_or(ETIMEDOUT)?;

                let back = Streaming::<_, FromDevice>::map(dma, blank(600)?)?;
                let start = Instant::<Monotonic>::now();

                // The transfer may end before that is noticed, but only if it had the time to.
                let is_over = || start.elapsed() >= UNDERWAY;

                match slot
                    .start(back, 0..600, Offset(0))?
                    .wait_polling(TICK, TICK)
                {
                    Err(e) => ensure!(e == ETIMEDOUT),
                    Ok(_) => {
                        ensure!(is_over());
                        continue;
                    }
                }

                let other = Streaming::<_, ToDevice>::map(dma, blank(16)?)?;

                match slot.start(other, 0..16, Offset(2000)) {
                    Err(ErrorWith { error, .. }) => {
                        ensure!(error == EBUSY);
                        break;
                    }
                    Ok(other) => {
                        ensure!(is_over());
                        drop(other.wait_polling(TICK, LONG)?);
                    }
                }
            }

            slot.settle(TICK, LONG)?;
            let back = slot.take::<FromDevice>()?.ok_or(EIO)?;
            ensure!(back.unmap() == pattern(600, 4)?);
            ensure!(quarantined() == before);
            Ok(())
        })
    }

    /// A device that goes away in the middle of a transfer: here, its registers stop to answer.
    /// Nobody waits, nobody gets a buffer that the device may still write; when it answers again,
    /// the buffer is had.
    #[test]
    fn vanished() -> Result {
        if is_absent() {
            return Ok(());
        }

        const COMMAND: usize = 4;
        const COMMAND_MEMORY: u16 = 2;

        with_device(|pdev| {
            let (dma, bare) = bring_up(pdev)?;
            let mut slot = bare.lock();
            let before = quarantined();
            let config = pdev.config_space();
            let command = config.read16(COMMAND);
            let back = Streaming::<_, FromDevice>::map(dma, blank(32)?)?;
            let transfer = slot.start(back, 0..32, Offset(0))?;

            config.write16(command & !COMMAND_MEMORY, COMMAND);
            let outcome = transfer.wait_polling(TICK, LONG).map(drop);
            let settled = slot.settle(TICK, LONG);
            let taken = slot.take::<FromDevice>().map(|buf| buf.is_some());
            let other = Streaming::<_, ToDevice>::map(dma, blank(16)?)?;
            let refused = match slot.start(other, 0..16, Offset(0)) {
                Ok(_) => None,
                Err(ErrorWith { error, value }) => Some((error, value.len())),
            };
            config.write16(command, COMMAND);

            ensure!(outcome == Err(ENODEV));
            ensure!(settled == Err(ENODEV));
            ensure!(taken == Err(ENODEV));
            ensure!(refused == Some((ENODEV, 16)));

            slot.settle(TICK, LONG)?;
            ensure!(slot
                .take::<FromDevice>()?
                .is_some_and(|buf| buf.unmap().len() == 32));
            ensure!(quarantined() == before);
            Ok(())
        })
    }

    /// What probing needs is taken: it fails, or makes do, and leaves nothing behind.
    #[test]
    #[slow]
    fn taken_resources() -> Result {
        if is_absent() {
            return Ok(());
        }

        with_device(|pdev| {
            pdev.enable_device_mem()?;

            let registers: super::super::regs::Registers<'_> =
                pdev.bound().iomap_region_sized(0, c"dma_rs_edu_test")?;
            let taken = Edu::bring_up(pdev, Completion::Interrupt, crate::constraints()?).map(drop);
            ensure!(taken == Err(EBUSY));
            drop(registers);

            // Without an interrupt it polls.
            let vectors = pdev.bound().alloc_irq_vectors(1, 1, pci::IrqTypes::all())?;
            let edu = Edu::bring_up(pdev, Completion::Interrupt, crate::constraints()?)?;
            let sent = edu.try_access_with(|edu| {
                edu.write(0, pattern(10, 1)?).map(drop).map_err(Error::from)
            });

            drop(vectors);
            sent?
        })?;

        with_edu(|edu| {
            edu.try_access_with(|edu| edu.write(0, pattern(10, 1)?).map(drop).map_err(Error::from))?
        })
    }

    /// An earlier driver went while the device was at work, and what the device was told to write
    /// to has another use by now. The next driver, which is bound within the device's 100 ms,
    /// switches bus mastering on only when that is over: the memory stays as it is.
    #[test]
    fn left_at_work() -> Result {
        if is_absent() {
            return Ok(());
        }

        let (before, lost) = (quarantined(), leaked());
        let mut page = None;

        with_device(|pdev| {
            let (dma, bare) = bring_up(pdev)?;

            fill(dma, &bare)?;
            cut(dma, &bare, 2048, SOON)?;

            // Proven, so it can be had.
            let back = bare.lock().take::<FromDevice>()?.ok_or(EIO)?;
            ensure!(back.bytes().is_empty());
            page = Some(back.unmap());
            Ok(())
        })?;

        // By now the driver has the device again.
        fsleep(OVER);
        ensure!(page == Some(blank(2048)?));
        ensure!(quarantined() == before && leaked() == lost);
        Ok(())
    }

    /// A transfer that is cut short writes nothing, neither when its time comes, nor when the
    /// device is started again.
    #[test]
    #[slow]
    fn cut_short() -> Result {
        if is_absent() {
            return Ok(());
        }

        with_device(|pdev| {
            let (dma, bare) = bring_up(pdev)?;

            fill(dma, &bare)?;

            for pause in [Delta::ZERO, SOON] {
                cut(dma, &bare, 512, pause)?;
                bare.start()?;
                fsleep(OVER);

                let back = bare.lock().take::<FromDevice>()?.ok_or(EIO)?;
                ensure!(back.bytes().is_empty());
                ensure!(back.unmap() == blank(512)?);
            }

            Ok(())
        })
    }

    /// Bus mastering is switched by the session, and by nothing else in safe code.
    #[test]
    fn bus_mastering() -> Result {
        if is_absent() {
            return Ok(());
        }

        const COMMAND: usize = 4;
        const MASTER: u16 = 4;

        with_device(|pdev| {
            let (_, bare) = prepare(pdev)?;
            let config = pdev.config_space();
            let is_on = || config.read16(COMMAND) & MASTER != 0;
            let try_all = |on: bool| {
                let bit = |was: u16| if on { was | MASTER } else { was & !MASTER };

                pdev.set_master();
                config.write16(bit(config.read16(COMMAND)), COMMAND);
                config.write32(u32::from(bit(config.read16(COMMAND))), COMMAND);
                // CAST: The lower half.
                config.write8(bit(config.read16(COMMAND)) as u8, COMMAND);
            };

            ensure!(!is_on());
            try_all(true);
            ensure!(!is_on());

            bare.start()?;
            ensure!(is_on());
            try_all(false);
            ensure!(is_on());

            ensure!(bare.stop() == StopOutcome::Stopped);
            ensure!(!is_on());
            try_all(true);
            ensure!(!is_on());

            // Other bits are the driver's.
            let command = config.read16(COMMAND);
            config.write16(command ^ 0x100, COMMAND);
            ensure!(config.read16(COMMAND) == command ^ 0x100);
            config.write16(command, COMMAND);
            Ok(())
        })
    }

    /// Where the device writes to signal an interrupt, says the PCI core, and no driver.
    #[test]
    fn interrupts_are_not_aimed() -> Result {
        if is_absent() {
            return Ok(());
        }

        const CAPABILITIES: usize = 0x34;
        const MSI: u8 = 5;

        with_device(|pdev| {
            let config = pdev.config_space();
            let mut msi = usize::from(config.read8(CAPABILITIES));

            while config.try_read8(msi)? != MSI {
                msi = usize::from(config.try_read8(msi + 1)?);
                ensure!(msi != 0);
            }

            let flags = config.try_read16(msi + 2)?;
            let address = config.try_read32(msi + 4)?;

            config.try_write16(flags ^ 1, msi + 2)?;
            ensure!(config.try_read16(msi + 2)? == flags);
            config.try_write32(address ^ 0x1000, msi + 4)?;
            ensure!(config.try_read32(msi + 4)? == address);
            config.try_write8(0x55, msi + 5)?;
            ensure!(config.try_read32(msi + 4)? == address);

            // As long as the capability is.
            let end = msi + if flags & 0x80 != 0 { 14 } else { 10 } - 2;
            let data = config.try_read16(end)?;

            config.try_write16(data ^ 1, end)?;
            ensure!(config.try_read16(end)? == data);
            Ok(())
        })
    }

    /// Registers that don't answer are no proof; that bus mastering is off is one.
    #[test]
    fn stop_without_registers() -> Result {
        if is_absent() {
            return Ok(());
        }

        const COMMAND: usize = 4;
        const MEMORY: u16 = 2;

        with_device(|pdev| {
            let (dma, bare) = bring_up(pdev)?;
            let config = pdev.config_space();
            let command = config.read16(COMMAND);
            let back = Streaming::<_, FromDevice>::map(dma, blank(32)?)?;
            let _ = bare.lock().start(back, 0..32, Offset(0))?;

            config.write16(command & !MEMORY, COMMAND);
            let outcome = bare.stop();
            let start = bare.start();
            config.write16(command, COMMAND);

            ensure!(outcome == StopOutcome::Stopped);
            ensure!(start == Err(ENODEV));
            ensure!(bare.lock().take::<FromDevice>()?.is_some());

            bare.start()?;
            fill(dma, &bare)
        })
    }

    /// At the end, that bus mastering is off isn't enough: the next driver may switch it on. So
    /// what a device may touch that doesn't say that it forgot is leaked.
    #[test]
    #[slow]
    fn unbound_without_registers() -> Result {
        if is_absent() {
            return Ok(());
        }

        /// Lets the registers answer again, for the next driver.
        struct Restore<'a>(&'a pci::Device<Bound>, u16);

        impl Drop for Restore<'_> {
            fn drop(&mut self) {
                self.0.config_space().write16(self.1, COMMAND);
            }
        }

        const COMMAND: usize = 4;
        const MEMORY: u16 = 2;
        const NO_INTX: u16 = 0x400;

        let lost = leaked();

        with_device(|pdev| {
            pdev.enable_device_mem()?;

            let dev: &Device<Core<'_>> = pdev.as_ref();
            let command = pdev.config_space().read16(COMMAND);

            devres::register_early(
                dev,
                Ok::<_, Error>(Restore(pdev.bound(), command)),
                GFP_KERNEL,
            )?;

            // Nothing is mapped: dma-debug would speak.
            drop(bring_up(pdev)?);
            pdev.config_space().write16(command & !MEMORY, COMMAND);
            Ok(())
        })?;

        ensure!(leaked() == lost + 1);
        // It could have interrupted for ever.
        ensure!(fixture::command_after_unbind() & NO_INTX != 0);
        with_edu(|edu| {
            edu.try_access_with(|edu| edu.write(0, pattern(64, 5)?).map(drop).map_err(Error::from))?
        })
    }

    /// Unbound in each phase of a transfer, with the buffer in the slot or beside it: all is freed,
    /// after the device has stopped.
    #[test]
    #[slow]
    fn unbound_in_each_phase() -> Result {
        if is_absent() {
            return Ok(());
        }

        let (before, lost) = (quarantined(), leaked());

        for phase in 0..6 {
            with_device(|pdev| {
                let (dma, bare) = bring_up(pdev)?;
                let back = Streaming::<_, FromDevice>::map(dma, blank(64)?)?;

                if phase == 0 {
                    // Nobody knows whether the device was told.
                    back.address();
                    drop(back);
                    return Ok(());
                }

                let _ = bare.lock().start(back, 0..64, Offset(0))?;

                match phase {
                    1 => {}
                    2 => fsleep(SOON),
                    3 => drop(bare),
                    4 => {
                        let mut slot = bare.lock();

                        slot.settle(TICK, LONG)?;
                        ensure!(slot.take::<FromDevice>()?.is_some());
                    }
                    _ => bare.lock().settle(TICK, LONG)?,
                }

                Ok(())
            })?;
        }

        ensure!(quarantined() == before + 1 && leaked() == lost);
        Ok(())
    }

    /// What became of somebody who waited for the device when it was unbound.
    #[derive(Clone, Copy, PartialEq, Eq)]
    enum Waited {
        /// Until the device was stopped, in the middle of the transfer. The buffer came back, and
        /// the device has written nothing to it.
        Cancelled,
        /// There is nothing to see, since the host was busy.
        Missed,
        /// As nobody should.
        Wrong,
    }

    /// What a transfer says, and the buffer if it came back.
    type Answer = (Option<Error>, Option<KVec<u8>>);

    /// Waits for the device when it is unbound, which has `held` in its memory.
    fn wait_at_unbind(completion: Completion, held: &KVec<u8>) -> Result<Waited> {
        let mut waiter = None;
        let start = Instant::<Monotonic>::now();

        with_device(|pdev| {
            let edu = Edu::bring_up(pdev, completion, crate::constraints()?)?;
            let data = pattern(held.len(), 7)?;
            let buf = blank(held.len())?;

            edu.try_access_with(|edu| edu.write(0, data).map_err(Error::from))??;

            waiter = Some(fixture::spawn(move || -> Result<Answer> {
                edu.try_access_with(|edu| match edu.read(0, buf) {
                    Ok(buf) => Ok((None, Some(buf))),
                    Err(ErrorWith { error, value }) => Ok((Some(error), value)),
                })?
            })?);

            // It is in flight, or not even mapped.
            fsleep(SOON);
            Ok(())
        })?;

        let elapsed = start.elapsed();
        let blank = blank(held.len())?;

        waiter.ok_or(EIO)?.join(|outcome| match outcome {
            // The device wrote nothing, before it was stopped or after.
            Ok((Some(e), Some(buf))) if *e == ESHUTDOWN && *buf == blank => Waited::Cancelled,
            // Unbinding stopped the device when it had written all, but nobody had looked.
            Ok((Some(e), Some(buf))) if *e == ESHUTDOWN && buf == held => Waited::Missed,
            // It was over before the device was unbound.
            Ok((None, Some(buf))) if buf == held => Waited::Missed,
            // The device was unbound before the other thread came.
            Err(e) if *e == ENODEV => Waited::Missed,
            // Nobody ran the device for as long as the driver has patience.
            Ok((Some(e), None)) if *e == ETIMEDOUT && elapsed >= TIMEOUT => Waited::Missed,
            _ => Waited::Wrong,
        })
    }

    /// Whoever waits for the device when it is unbound doesn't wait for long, and gets the buffer.
    #[test]
    fn waiting_at_unbind() -> Result {
        if is_absent() {
            return Ok(());
        }

        for completion in [Completion::Interrupt, Completion::Polling] {
            let held = pattern(128, 7)?;
            let mut tries = 0..TRIES;

            // On a busy host once is not enough. But a device that writes after the unbind does so
            // each time.
            loop {
                tries.next().ok_or(ETIMEDOUT)?;

                match wait_at_unbind(completion, &held)? {
                    Waited::Cancelled => break,
                    Waited::Missed => {}
                    Waited::Wrong => return Err(EINVAL),
                }
            }
        }

        Ok(())
    }

    /// The device as its driver leaves it, and what taking its interrupts back does.
    #[test]
    fn forgotten_at_unbind() -> Result {
        if is_absent() {
            return Ok(());
        }

        const COMMAND: usize = 4;
        const NO_INTX: u16 = 1 << 10;

        with_device(|pdev| {
            let (dma, bare) = bring_up(pdev)?;

            // One address in the device, and one in memory.
            fill(dma, &bare)
        })?;

        with_device(|pdev| {
            pdev.enable_device_mem()?;

            // Those who share the line have nothing to do with it.
            let config = pdev.config_space();
            let command = config.read16(COMMAND);

            config.write16(command | NO_INTX, COMMAND);

            let mut parts = engine::claim(pdev, crate::constraints()?)?;
            let waker = parts.interrupts.wake(Arc::pin_init(
                kernel::new_wait_queue!("dma_rs::tests"),
                GFP_KERNEL,
            )?);
            let is_handled = || matches!(waker.handle(), IrqReturn::Handled);

            ensure!(parts.version == (1, 0));
            ensure!(parts.stopper.told()? == (0, 0, 0));
            ensure!(parts.stopper.raised() == 0 && !is_handled());

            for interrupts in [1, 0x100, 0x8000_0001] {
                parts.stopper.raise(interrupts);
                ensure!(parts.stopper.raised() == interrupts);
                ensure!(is_handled() && parts.stopper.raised() == 0 && !is_handled());

                parts.stopper.raise(interrupts);
                parts.stopper.disarm()?;
                ensure!(parts.stopper.raised() == 0 && !is_handled());
            }

            config.write16(command, COMMAND);
            Ok(())
        })
    }

    /// What the driver has counted, as a person reads it.
    #[test]
    #[slow]
    fn counters() -> Result {
        if is_absent() {
            return Ok(());
        }

        /// What shows itself to a person.
        struct Shown(Arc<Stats>);

        impl fmt::Display for Shown {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.show(f)
            }
        }

        with_device(|pdev| {
            let mask = Mapper::get(pdev.bound().as_ref())?.mask();
            let edu = Edu::bring_up(pdev, Completion::Polling, crate::constraints()?)?;

            edu.try_access_with(|edu| {
                edu.write(0, pattern(10, 1)?)?;
                edu.write(0, pattern(20, 1)?)?;
                edu.read(0, blank(5)?)?;
                edu.copy(pattern(300, 1)?, blank(300)?)?;
                ensure!(edu.write(MEMORY_SIZE, pattern(1, 1)?).is_err());

                let shown = CString::try_from_fmt(fmt!("{}", Shown(edu.stats())))?;
                let expected = CString::try_from_fmt(fmt!(
                    "mask: {mask:#x}\ninterrupt: none (polling)\n\
                     to the device: 3 transfers, 330 bytes\n\
                     from the device: 2 transfers, 305 bytes\nfailures: 1\n"
                ))?;

                ensure!(*shown == *expected);
                Ok(())
            })?
        })
    }

    /// One thread resets the device, another one uses it: what arrives is right.
    #[test]
    #[slow]
    fn reset_under_load() -> Result {
        if is_absent() {
            return Ok(());
        }

        let lost = leaked();

        with_device(|pdev| {
            let edu = Edu::bring_up(pdev, Completion::Interrupt, crate::constraints()?)?;
            let theirs = edu.clone();
            let user = fixture::spawn(move || -> Result<u32> {
                let (mut done, mut seed) = (0, 0);

                // At the end the device runs, so something can be done, however busy the host.
                while done == 0 || seed < 12 {
                    let (source, copy) = (pattern(300, seed)?, blank(300)?);

                    match theirs.try_access_with(|edu| edu.copy(source, copy))? {
                        Ok((source, copy)) => {
                            ensure!(source == copy && copy == pattern(300, seed)?);
                            done += 1;
                        }
                        Err(ErrorWith { error, value }) => {
                            ensure!(error == ESHUTDOWN);
                            ensure!(matches!(value, (Some(_), Some(_))));
                            // Not all of them while it is disarmed.
                            fsleep(TICK);
                        }
                    }

                    seed += 1;
                }

                Ok(done)
            })?;

            for _ in 0..3 {
                fsleep(Delta::from_millis(300));
                edu.try_access_with(|edu| edu.reset())??;
            }

            ensure!(user.join(|done| matches!(done, Ok(done) if *done > 0))?);
            edu.try_access_with(|edu| edu.write(0, pattern(10, 1)?).map(drop).map_err(Error::from))?
        })?;

        ensure!(leaked() == lost);
        Ok(())
    }

    /// A probe that fails after each of its steps: nothing is left behind, also when the device is
    /// at work already.
    #[test]
    #[slow]
    fn failed_probe() -> Result {
        if is_absent() {
            return Ok(());
        }

        /// Does the first `steps` steps.
        fn probe(pdev: &pci::Device<Core<'_>>, steps: usize) -> Result {
            let mut left = steps;
            let mut step = || {
                left = left.checked_sub(1).ok_or(EPROTO)?;
                Ok::<_, Error>(())
            };

            step()?;
            pdev.enable_device_mem()?;
            step()?;
            let dma = Mapper::get(pdev.bound().as_ref())?;
            let waiters = Arc::pin_init(kernel::new_wait_queue!("dma_rs::tests"), GFP_KERNEL)?;
            step()?;
            let mut parts = engine::claim(pdev, crate::constraints()?)?;
            step()?;
            let types = pci::IrqTypes::all();
            let waker = parts.interrupts.wake(waiters);
            pdev.request_irq(types, c"dma_rs_edu_test", Ok(waker))?;
            step()?;
            parts.engine.interrupt = true;
            let slot = TransferSlot::new(dma, parts.engine)?;
            step()?;
            let bare: Bare<'_> = Session::new(pdev.as_ref(), parts.stopper, new_mutex!(slot))?;
            step()?;
            bare.start()?;
            step()?;
            let back = Streaming::<_, FromDevice>::map(dma, blank(64)?)?;
            let _ = bare.lock().start(back, 0..64, Offset(0))?;
            step()?;
            drop(bare);
            step()
        }

        let (before, lost) = (quarantined(), leaked());

        for steps in 0..10 {
            let outcome = fixture::failing(|| with_device(|pdev| probe(pdev, steps)));

            ensure!(outcome == Err(EPROTO));
        }

        ensure!(quarantined() == before && leaked() == lost);
        with_edu(|edu| {
            edu.try_access_with(|edu| edu.write(0, pattern(64, 5)?).map(drop).map_err(Error::from))?
        })
    }

    /// Each job has a fence, for others to wait for: without the driver's lock, and when the device
    /// is gone. It is signalled when the job is over, and not before.
    #[test]
    fn fences() -> Result {
        if is_absent() {
            return Ok(());
        }

        /// Starts something in another thread, and returns what it gave to the device.
        fn underway(
            edu: &Handle,
            job: impl FnOnce(&Edu<'_>) -> Result + Send + 'static,
        ) -> Result<(ARef<Fence>, fixture::Spawned<Result>)> {
            let before = edu.try_access_with(|edu| edu.latest())?;
            let theirs = edu.clone();
            let start = Instant::<Monotonic>::now();
            let job = fixture::spawn(move || theirs.try_access_with(job).and_then(|done| done))?;

            loop {
                let latest = edu.try_access_with(|edu| edu.latest())?;

                match latest {
                    Some(fence)
                        if !before.as_ref().is_some_and(|before| {
                            core::ptr::eq(&raw const **before, &raw const *fence)
                        }) =>
                    {
                        return Ok((fence, job))
                    }
                    _ if start.elapsed() > LONG => return Err(ETIMEDOUT),
                    _ => fsleep(TICK),
                }
            }
        }

        let mut kept = None;

        with_edu(|edu| {
            for way in 0..3 {
                let start = Instant::<Monotonic>::now();
                let (fence, job) = underway(edu, move |edu| {
                    match way {
                        0 => drop(edu.write(0, pattern(64, 1)?)?),
                        1 => drop(edu.read(0, blank(64)?)?),
                        _ => drop(edu.copy(pattern(64, 1)?, blank(64)?)?),
                    }
                    Ok(())
                })?;
                let outcome = fence.wait_interruptible(LONG)?;

                ensure!(outcome == Some(Ok(())) && start.elapsed() > UNDERWAY);
                ensure!(job.join(|outcome| outcome.is_ok())?);
            }

            // The device is stopped in the middle, and the job has failed. A busy host comes too
            // late.
            for _ in 0..TRIES {
                let (fence, job) =
                    underway(edu, |edu| Ok(edu.write(0, pattern(64, 1)?).map(drop)?))?;

                edu.try_access_with(|edu| edu.stop())?;

                let outcome = fence.wait(LONG).ok_or(ETIMEDOUT)?;

                ensure!(job.join(|job| *job == outcome)?);

                if outcome.is_err() {
                    ensure!(outcome == Err(ESHUTDOWN));
                    kept = Some(fence);
                    return Ok(());
                }

                edu.try_access_with(|edu| edu.reset())??;
            }

            Err(ETIMEDOUT)
        })?;

        ensure!(kept.is_some_and(|fence| fence.status() == Some(Err(ESHUTDOWN))));
        Ok(())
    }

    /// Bus errors: the device is stopped when one is reported, and runs again when it is over.
    #[test]
    fn error_recovery() -> Result {
        if is_absent() {
            return Ok(());
        }

        let lost = leaked();

        // CAST: The ID is 16 bits wide.
        fixture::recover_pci_device(VENDOR, DEVICE as u16)?;
        ensure!(leaked() == lost);
        Ok(())
    }

    /// A mask that the platform can't serve fails the probe, and nothing else. An IOMMU serves any.
    #[test]
    #[slow]
    fn refused_mask() -> Result {
        if is_absent() {
            return Ok(());
        }

        let mut ran = false;
        // CAST: The ID is 16 bits wide.
        let outcome = fixture::with_pci_device(
            VENDOR,
            DEVICE as u16,
            Constraints::new(DmaMask::new::<8>()),
            |_| {
                ran = true;
                Ok(())
            },
        );

        ensure!(ran == outcome.is_ok());
        with_edu(|edu| {
            edu.try_access_with(|edu| edu.write(0, pattern(10, 1)?).map(drop).map_err(Error::from))?
        })
    }
}
