// SPDX-License-Identifier: GPL-2.0

//! KUnit tests on real devices: the first NVMe device of QEMU, taken from its driver meanwhile.
//!
//! The device is never stopped while it works: QEMU 7.2 ends then, now and again.

use super::{
    hardware::{
        self,
        IoCommand,
        MAX_BYTES, //
    },
    nvme::{
        Nvme,
        TAGS, //
    },
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
        leaked,
        quarantined,
        queue::Either,
        StopOutcome,
        Streaming, //
    },
    kunit,
    pci,
    prelude::*,
    sync::atomic::{
        Atomic,
        Relaxed, //
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
            let lens = [1, 8, 9, 16, 17, 24, 100, MAX_BYTES / 512];

            for (seed, blocks) in lens.into_iter().enumerate() {
                // CAST: Widening.
                let first = 300 * seed as u64;
                let written = nvme.write(first, pattern(512 * blocks, seed)?)?;

                ensure!(written == pattern(512 * blocks, seed)?);
            }

            for (seed, blocks) in lens.into_iter().enumerate() {
                // CAST: Widening.
                let first = 300 * seed as u64;

                ensure!(nvme.read(first, blank(512 * blocks)?)? == pattern(512 * blocks, seed)?);

                // Small buffers don't begin with a page.
                let last = first + blocks as u64 - 1;
                let end = nvme.read(last, blank(512)?)?;

                ensure!(end[..] == pattern(512 * blocks, seed)?[512 * (blocks - 1)..]);
            }

            let io = nvme.session.io.lock();

            ensure!(io.commands.completer.strays() == 0);
            Ok(())
        })
    }

    /// As many in flight as can be, for some turns of the queues; each is what it was.
    #[test]
    fn many_in_flight() -> Result {
        if is_absent() {
            return Ok(());
        }

        with_nvme(|nvme| {
            for turn in 0..12 {
                let mut tickets = KVec::new();
                let mut commands = KVec::new();

                for i in 0..usize::from(TAGS) {
                    // CAST: Widening.
                    let block = 20 * i as u64;

                    if turn % 2 == 0 {
                        let data = Streaming::map(nvme.dma, pattern(512 * (1 + i), turn + i)?)?;

                        commands.push(
                            (IoCommand::Write(block), Some(Either::First(data))),
                            GFP_KERNEL,
                        )?;
                    } else {
                        let data = Streaming::map(nvme.dma, blank(512 * (1 + i))?)?;

                        commands.push(
                            (IoCommand::Read(block), Some(Either::Second(data))),
                            GFP_KERNEL,
                        )?;
                    }
                }

                let doorbells = nvme.session.io.lock().commands.submitter.doorbells();

                nvme.submit(commands, |ticket| Ok(tickets.push(ticket, GFP_KERNEL)?))?;
                ensure!(nvme.session.io.lock().commands.submitter.doorbells() == doorbells + 1);

                for (i, ticket) in tickets.into_iter().enumerate() {
                    let (back, status) = nvme.wait(ticket)?;

                    ensure!(status == Some(0));

                    match back {
                        Some(Either::First(_)) => ensure!(turn % 2 == 0),
                        Some(Either::Second(read)) => {
                            ensure!(read.bytes() == &pattern(512 * (1 + i), turn - 1 + i)?[..]);
                        }
                        None => return Err(EIO),
                    }
                }
            }

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
                (IoCommand::Read(0), read(MAX_BYTES + 512)?),
                // The other way round.
                (IoCommand::Read(0), write(512)?),
                (IoCommand::Write(0), read(512)?),
                (IoCommand::Flush, write(512)?),
            ] {
                ensure!(nvme.execute(command, data).err() == Some(EINVAL));
            }

            // Beyond the end; the buffer comes back, and nothing in it is believed.
            let mut ticket = None;

            nvme.submit(
                [(IoCommand::Read(nvme.identity.blocks), read(512)?)],
                |submitted| {
                    ticket = Some(submitted);
                    Ok(())
                },
            )?;

            let (back, status) = nvme.wait(ticket.ok_or(EIO)?)?;
            let Some(Either::Second(buf)) = back else {
                return Err(EIO);
            };

            ensure!(status.is_some_and(|status| status != 0) && buf.bytes().is_empty());
            ensure!(nvme.read(0, blank(512)?).is_ok());
            Ok(())
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

                nvme.start()?;
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
}
