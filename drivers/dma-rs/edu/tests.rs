// SPDX-License-Identifier: GPL-2.0

//! KUnit tests on real devices: the first edu of the machine, taken from the driver meanwhile.

#![allow(unsafe_code)]

use super::{
    edu::{
        Completion,
        Edu,
        Handle, //
    },
    engine::{
        EduEngine,
        Hardware,
        Offset,
        Waker, //
    },
    module_parameters,
    regs::MEMORY_SIZE,
    DEVICE,
    VENDOR, //
};
use kernel::{
    device::Core,
    dma::{
        fixture::{
            self,
            ensure, //
        },
        oneshot::Slot,
        quarantined,
        Buffer,
        Configured,
        DmaMask,
        FromDevice,
        MapError,
        Setup,
        Streaming,
        StreamingBox,
        ToDevice, //
    },
    io::Io,
    kunit,
    pci,
    prelude::*,
    sync::atomic::{
        Atomic,
        Relaxed, //
    },
    time::{
        msecs_to_jiffies,
        Delta, //
    }, //
};

const TICK: Delta = Delta::from_millis(2);
const SOON: Delta = Delta::from_millis(20);
const LONG: Delta = Delta::from_secs(2);

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
    let setup = Setup::new(DmaMask::try_new(module_parameters::dma_bits.value())?);

    // CAST: The ID is 16 bits wide.
    fixture::with_pci_device(VENDOR, DEVICE as u16, setup, body)
}

/// Runs a test on a device that the driver brought up, with an interrupt and by polling.
fn with_edu(mut body: impl FnMut(&Handle) -> Result) -> Result {
    for completion in [Completion::Interrupt, Completion::Polling] {
        with_device(|pdev| {
            let edu = Edu::bring_up(pdev, completion)?;
            let outcome = body(&edu);

            edu.with(|edu| edu.shut_down())??;
            edu.close();
            outcome
        })?;
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
                let out =
                    edu.with(|edu| edu.write(offset, pattern(len, seed)?).map_err(Error::from))??;
                let back = edu.with(|edu| edu.read(offset, blank(len)?).map_err(Error::from))??;

                ensure!(out == pattern(len, seed)?);
                ensure!(back == out);
            }

            Ok(())
        })
    }

    /// Longer than the device can take at once.
    #[test]
    fn copy_in_pieces() -> Result {
        if is_absent() {
            return Ok(());
        }

        with_edu(|edu| {
            let len = 2 * MEMORY_SIZE + 500;
            let (source, copy) =
                edu.with(|edu| edu.copy(pattern(len, 9)?, blank(len)?).map_err(Error::from))??;

            ensure!(source == pattern(len, 9)?);
            ensure!(copy == source);
            Ok(())
        })
    }

    /// What doesn't suit the device is refused, and comes back as it was.
    #[test]
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
                let refused =
                    edu.with(|edu| Ok::<_, Error>(edu.write(offset, pattern(len, 1)?)))??;

                match refused {
                    Err(e) => {
                        ensure!(e.error == EINVAL);
                        ensure!(e.value == Some(pattern(len, 1)?));
                    }
                    Ok(_) => return Err(EINVAL),
                }
            }

            // The buffers differ in length.
            let refused = edu.with(|edu| Ok::<_, Error>(edu.copy(blank(10)?, blank(11)?)))??;
            ensure!(matches!(refused, Err(ref e) if e.error == EINVAL));

            // Longer than a mapping can be, where there is a limit.
            let refused =
                edu.with(|edu| Ok::<_, Error>(edu.write(0, KVec::zeroed(4 << 20, GFP_KERNEL)?)))??;
            match refused {
                Err(e) => ensure!(e.error == EOVERFLOW || e.error == EINVAL),
                Ok(_) => return Err(EINVAL),
            }

            // And all is well afterwards.
            edu.with(|edu| edu.write(0, pattern(10, 1)?).map_err(Error::from))??;
            Ok(())
        })
    }

    /// A shut down device takes no work, and gives it back; a closed handle leads nowhere.
    #[test]
    fn shut_down() -> Result {
        if is_absent() {
            return Ok(());
        }

        with_device(|pdev| {
            let edu = Edu::bring_up(pdev, Completion::Polling)?;

            edu.with(|edu| edu.shut_down())??;
            let refused = edu.with(|edu| Ok::<_, Error>(edu.write(0, pattern(10, 1)?)))??;
            ensure!(matches!(refused, Err(e) if e.error == ESHUTDOWN && e.value.is_some()));

            edu.close();
            ensure!(matches!(edu.with(|_| ()), Err(e) if e == ENODEV));
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
            kept = Some(Edu::bring_up(pdev, Completion::Interrupt)?);
            Ok(())
        })?;

        ensure!(kept.is_some_and(|edu| matches!(edu.with(|_| ()), Err(e) if e == ENODEV)));
        Ok(())
    }

    /// Brings the hardware up, without the driver around it.
    fn slot<'a>(
        pdev: &pci::Device<Core<'a>>,
    ) -> Result<(Configured<'a>, Slot<'a, EduEngine<'a>, KVec<u8>>)> {
        pdev.enable_device_mem()?;

        let dma = Configured::get(pdev.bound().as_ref())?;
        let registers = pdev.bound().iomap_region_sized(0, c"dma_rs_edu_test")?;
        let engine = EduEngine {
            hardware: Hardware::bring_up(registers)?,
            interrupt: false,
        };

        pdev.set_master();
        Ok((dma, Slot::new(engine)))
    }

    /// The end of a transfer raises an interrupt, without which waiting would take its whole time.
    #[test]
    fn interrupt_comes() -> Result {
        if is_absent() {
            return Ok(());
        }

        with_device(|pdev| {
            pdev.enable_device_mem()?;

            let dma = Configured::get(pdev.bound().as_ref())?;
            let registers = pdev.bound().iomap_region_sized(0, c"dma_rs_edu_test")?;
            let hardware = Hardware::bring_up(registers)?;
            let types = pci::IrqTypes::default()
                .with(pci::IrqType::Msi)
                .with(pci::IrqType::Intx);

            pdev.request_irq(types, c"dma_rs_edu_test", Ok(Waker(hardware.clone())))?;
            pdev.set_master();

            let engine = EduEngine {
                hardware: hardware.clone(),
                interrupt: true,
            };
            let mut slot = Slot::new(engine);
            let out = Streaming::<_, ToDevice>::map(dma, blank(64)?)?;
            let _ = slot.start(out, 0..64, Offset(0))?;
            let came = hardware
                .interrupted
                .wait_for_completion_timeout(msecs_to_jiffies(2000));

            slot.settle(TICK, LONG)?;
            ensure!(came.is_some());
            Ok(())
        })
    }

    /// A buffer that stays mapped: what the CPU writes between two transfers reaches the device,
    /// and what the device writes reaches the CPU, each time.
    #[test]
    fn kept_mapping() -> Result {
        if is_absent() {
            return Ok(());
        }

        with_device(|pdev| {
            let (dma, mut slot) = slot(pdev)?;
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
            let (dma, mut slot) = slot(pdev)?;
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
            let (dma, mut slot) = slot(pdev)?;
            let before = quarantined();
            let out = Streaming::<_, ToDevice>::map(dma, pattern(600, 4)?)?;

            drop(
                slot.start(out, 0..600, Offset(0))?
                    .wait_polling(TICK, LONG)?,
            );

            let back = Streaming::<_, FromDevice>::map(dma, blank(600)?)?;
            let late = slot
                .start(back, 0..600, Offset(0))?
                .wait_polling(TICK, SOON);
            ensure!(matches!(late, Err(e) if e == ETIMEDOUT));

            let other = Streaming::<_, ToDevice>::map(dma, blank(16)?)?;
            ensure!(matches!(slot.start(other, 0..16, Offset(0)), Err(e) if e.error == EBUSY));

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
            let (dma, mut slot) = slot(pdev)?;
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
                Err(MapError { error, value }) => Some((error, value.unmap().len())),
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
    fn taken_resources() -> Result {
        if is_absent() {
            return Ok(());
        }

        with_device(|pdev| {
            pdev.enable_device_mem()?;

            let registers: super::super::regs::Registers<'_> =
                pdev.bound().iomap_region_sized(0, c"dma_rs_edu_test")?;
            let taken = Edu::bring_up(pdev, Completion::Interrupt).map(drop);
            ensure!(taken == Err(EBUSY));
            drop(registers);

            // Without an interrupt it polls.
            let vectors = pdev.bound().alloc_irq_vectors(1, 1, pci::IrqTypes::all())?;
            let edu = Edu::bring_up(pdev, Completion::Interrupt)?;
            let sent = edu.with(|edu| edu.write(0, pattern(10, 1)?).map(drop).map_err(Error::from));

            edu.close();
            drop(vectors);
            sent?
        })?;

        with_edu(|edu| {
            edu.with(|edu| edu.write(0, pattern(10, 1)?).map(drop).map_err(Error::from))?
        })
    }

    /// An earlier driver went while the device was at work, and leaked what the device may still
    /// write: the next one waits until that is over, before it tells the device anything.
    #[test]
    fn left_at_work() -> Result {
        if is_absent() {
            return Ok(());
        }

        let before = quarantined();
        let mut leaked = 0;
        let mut ptr = core::ptr::null();

        // This is how dma-debug says that a driver went and left something mapped.
        fixture::expect("device driver has pending DMA allocations");
        fixture::expect("dma_debug_device_change");
        with_device(|pdev| {
            let (dma, mut slot) = slot(pdev)?;
            let back = blank(256)?;

            ptr = Buffer::as_ptr(&back);

            let back = Streaming::<_, FromDevice>::map(dma, back)?;

            // SAFETY: The device gets this from the slot.
            leaked = unsafe { back.address().to_bits() };
            let _ = slot.start(back, 0..256, Offset(0))?;
            Ok(())
        })?;
        ensure!(quarantined() == before + 1);

        // By now the driver has the device again, which it brought to rest first.
        //
        // CAST: The ID is 16 bits wide.
        // SAFETY: So the device is done with what was mapped above, and quarantined.
        unsafe {
            fixture::unmap_leaked::<FromDevice>(VENDOR, DEVICE as u16, leaked, 256);
            fixture::free_quarantined(ptr);
        }

        with_edu(|edu| {
            edu.with(|edu| edu.write(0, pattern(64, 5)?).map(drop).map_err(Error::from))?
        })
    }

    /// A mask that the platform can't serve fails the probe, and nothing else. An IOMMU serves any.
    #[test]
    fn refused_mask() -> Result {
        if is_absent() {
            return Ok(());
        }

        let mut ran = false;
        // CAST: The ID is 16 bits wide.
        let outcome = fixture::with_pci_device(
            VENDOR,
            DEVICE as u16,
            Setup::new(DmaMask::new::<8>()),
            |_| {
                ran = true;
                Ok(())
            },
        );

        ensure!(ran == outcome.is_ok());
        with_edu(|edu| {
            edu.with(|edu| edu.write(0, pattern(10, 1)?).map(drop).map_err(Error::from))?
        })
    }
}
