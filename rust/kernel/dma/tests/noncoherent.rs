// SPDX-License-Identifier: GPL-2.0

//! Tests of memory that the kernel picks for a device, and that is synced as buffers are.

use super::{
    ensure,
    fixture::{
        self,
        on_each_bus_set_up,
        prove, //
    }, //
};
use crate::{
    device::{
        Core,
        Device, //
    },
    dma::{
        quarantined,
        Bidirectional,
        Constraints,
        CpuWrites,
        Direction,
        DmaMask,
        FromDevice,
        Mapper,
        Noncoherent,
        NoncoherentBox,
        ToDevice, //
    },
    new_spinlock_irq,
    page::PAGE_SIZE,
    prelude::*,
    sync::SpinLockIrq, //
};

const WIDE: Constraints = Constraints::new(DmaMask::new::<64>());

/// What takes a segment of a mebibyte.
const LONG: Constraints = WIDE.max_segment_size(1 << 20);

const SIZES: [usize; 6] = [
    1,
    PAGE_SIZE - 1,
    PAGE_SIZE,
    PAGE_SIZE + 1,
    5 * PAGE_SIZE,
    200 << 10,
];

fn open<'a>(dev: &Device<Core<'a>>) -> Result<Mapper<'a>> {
    fixture::open(dev.bound())
}

/// Runs a test on each kind of bus, with a device that runs.
fn on_each(mut body: impl FnMut(Mapper<'_>) -> Result) -> Result {
    on_each_bus_set_up(Some(LONG), |pdev| body(open(pdev.as_ref())?))
}

/// Says that the device of a test accesses nothing. There is none.
fn stop(dma: Mapper<'_>) {
    // SAFETY: There is no device.
    unsafe { prove(dma) };
}

/// Allocates in one way or the other.
fn alloc<'a, D: Direction>(
    dma: Mapper<'a>,
    len: usize,
    in_pieces: bool,
) -> Result<NoncoherentBox<'a, D>> {
    if in_pieces {
        NoncoherentBox::in_pieces(dma, len)
    } else {
        NoncoherentBox::new(dma, len, GFP_KERNEL)
    }
}

/// The byte at an index. CAST: Cut on purpose.
fn pattern(i: usize) -> u8 {
    (i * 11 + i / 253) as u8
}

/// Takes back memory that no device was told of.
fn complete<D: Direction>(memory: Noncoherent<'_, D>) -> NoncoherentBox<'_, D> {
    // SAFETY: There is no device.
    unsafe { memory.complete() }
}

/// What the CPU writes survives the way through the states.
pub(super) fn there_and_back<D: CpuWrites>(
    dma: Mapper<'_>,
    sizes: &[usize],
    in_pieces: bool,
) -> Result {
    for &size in sizes {
        let mut memory = alloc::<D>(dma, size, in_pieces)?;

        ensure!(memory.bytes().len() == size);
        ensure!(memory.bytes().iter().all(|byte| *byte == 0));

        for round in 0..2 {
            for (i, byte) in memory.bytes_mut().iter_mut().enumerate() {
                *byte = pattern(i + round);
            }

            let given = memory.submit();

            ensure!(given.address().len() == size);
            memory = complete(given);

            let bytes = memory.bytes().iter().enumerate();

            ensure!(bytes
                .into_iter()
                .all(|(i, byte)| *byte == pattern(i + round)));
        }
    }
    Ok(())
}

#[kunit_tests(rust_dma_noncoherent)]
mod cases {
    use super::*;

    #[test]
    fn sizes() -> Result {
        on_each(|dma| {
            for in_pieces in [false, true] {
                there_and_back::<ToDevice>(dma, &SIZES, in_pieces)?;
                there_and_back::<Bidirectional>(dma, &SIZES, in_pieces)?;

                // What only the device writes is zero until then.
                for size in SIZES {
                    let memory = complete(alloc::<FromDevice>(dma, size, in_pieces)?.submit());

                    ensure!(memory.bytes().iter().all(|byte| *byte == 0));
                }
            }
            Ok(())
        })
    }

    /// Whatever is asked for, there is an error, and nothing complains.
    #[test]
    fn absurd() -> Result {
        on_each_bus_set_up(Some(WIDE), |pdev| {
            let dma = open(pdev.as_ref())?;

            for in_pieces in [false, true] {
                let outcome = |len| alloc::<ToDevice>(dma, len, in_pieces).map(drop);

                ensure!(outcome(0) == Err(EINVAL));
                // CAST: Cut where addresses have 32 bits.
                for len in [usize::MAX, usize::MAX / 2, (1_u64 << 46) as usize, 1 << 31] {
                    let outcome = outcome(len);

                    ensure!(len == 0 || outcome == Err(ENOMEM) || outcome == Err(EOVERFLOW));
                }

                // More than the page allocator has in one piece, and than a segment has.
                let outcome = outcome(64 << 20);

                ensure!(if in_pieces {
                    outcome == Err(EOVERFLOW)
                } else {
                    matches!(outcome, Ok(()) | Err(ENOMEM))
                });
            }
            Ok(())
        })
    }

    /// It is a segment, for which all constraints hold.
    #[test]
    fn constraints() -> Result {
        for (constraints, len, outcome) in [
            (WIDE.max_segment_size(8192), 8192, Ok(())),
            (WIDE.max_segment_size(8192), 8193, Err(EOVERFLOW)),
            (WIDE.segment_boundary(0x3fff), 16_384, Ok(())),
            (WIDE.segment_boundary(0x3fff), 16_385, Err(EINVAL)),
            (WIDE.alignment(2048), 100, Ok(())),
        ] {
            on_each_bus_set_up(Some(constraints), |pdev| {
                let dma = open(pdev.as_ref())?;

                for in_pieces in [false, true] {
                    // A simulated bus gives any addresses to mappings, and C complains of a list
                    // that crosses the boundary before we see it.
                    if in_pieces && constraints == WIDE.segment_boundary(0x3fff) {
                        continue;
                    }

                    match alloc::<FromDevice>(dma, len, in_pieces) {
                        Ok(memory) => {
                            let memory = memory.submit();
                            let address = memory.address().bits();

                            ensure!(outcome == Ok(()));
                            ensure!(constraints.admit(address, len) == Ok(()));
                        }
                        // As above.
                        Err(error) => ensure!(outcome == Err(error) || error == EINVAL),
                    }
                }
                stop(dma);
                Ok(())
            })
            .inspect_err(|_| pr_err!("{constraints:?}\n"))?;
        }
        Ok(())
    }

    /// Memory comes back when the device can't access it, and not before; dropped in flight, it is
    /// kept.
    #[test]
    fn in_flight() -> Result {
        on_each(|dma| {
            let before = quarantined();

            for in_pieces in [false, true] {
                let memory = alloc::<ToDevice>(dma, 100, in_pieces)?.submit();
                let memory = memory.take_back().map_err(|_| EBUSY)?.submit();

                memory.address();
                let Err(memory) = memory.take_back() else {
                    return Err(EINVAL);
                };
                stop(dma);
                let mut memory = memory.take_back().map_err(|_| EBUSY)?;

                memory.bytes_mut().fill(1);
                fixture::open(dma.bound())?;

                let (memory, count) = (memory.submit(), quarantined());

                memory.address();
                drop(memory);
                ensure!(quarantined() == count + 1);

                // Never shown.
                drop(alloc::<FromDevice>(dma, 100, in_pieces)?.submit());
                ensure!(quarantined() == count + 1);
                stop(dma);
                fixture::open(dma.bound())?;
            }

            ensure!(quarantined() == before + 2);
            Ok(())
        })
    }

    /// Where interrupts are off.
    #[test]
    fn atomic() -> Result {
        on_each(|dma| {
            let lock = KBox::pin_init(new_spinlock_irq!(()), GFP_KERNEL)?;
            let lock: &SpinLockIrq<()> = &lock;
            let pieces = alloc::<ToDevice>(dma, 5000, true)?;
            let _guard = lock.lock();

            drop(NoncoherentBox::<ToDevice>::new(dma, 100, GFP_ATOMIC)?);
            drop(pieces.submit());
            Ok(())
        })
    }
}

/// What the device sees, and what fails, on simulated buses.
#[cfg(CONFIG_RUST_DMA_SIM)]
#[kunit_tests(rust_dma_noncoherent_sim)]
mod on_sim {
    use super::*;
    use crate::dma::sim::{
        self,
        Model,
        Script, //
    };

    const PLAIN: Script = Script::new(Model::Coherent).constraints(LONG);

    /// The device sees what the CPU wrote, and the CPU what the device wrote: on each kind of bus,
    /// so no sync is missing.
    #[test]
    fn device_access() -> Result {
        sim::run_on_each(PLAIN, |pdev, sim| {
            let dma = open(pdev.as_ref())?;

            for in_pieces in [false, true] {
                for len in [1, 100, PAGE_SIZE + 100] {
                    let mut out = alloc::<ToDevice>(dma, len, in_pieces)?;
                    let mut given = alloc::<FromDevice>(dma, len, in_pieces)?.submit();

                    for round in 0..3 {
                        out.bytes_mut()
                            .iter_mut()
                            .enumerate()
                            .for_each(|(i, byte)| *byte = pattern(i + round));

                        let sent = out.submit();
                        let mut seen = KVec::from_elem(0, len, GFP_KERNEL)?;

                        // SAFETY: The device owns both.
                        ensure!(unsafe {
                            sim.device_read(sent.address().bits(), &mut seen)
                                && sim.device_write(given.address().bits(), &seen)
                        });
                        out = complete(sent);

                        let received = complete(given);
                        let bytes = received.bytes().iter().enumerate();

                        ensure!(bytes.into_iter().all(|(i, b)| *b == pattern(i + round)));
                        given = received.submit();
                    }
                    stop(dma);
                    drop(given);
                    fixture::open(dma.bound())?;
                }
            }
            stop(dma);
            Ok(())
        })
    }

    /// Without addresses there is an error, and nothing else happens.
    #[test]
    fn no_room() -> Result {
        sim::run_on_each(PLAIN, |pdev, sim| {
            let dma = open(pdev.as_ref())?;

            for in_pieces in [false, true] {
                sim.fail_map(1);

                let outcome = alloc::<ToDevice>(dma, 100, in_pieces).map(drop);

                ensure!(outcome == Err(ENOMEM) && sim.counters().live == 0);
                drop(alloc::<ToDevice>(dma, 100, in_pieces)?);
                ensure!(sim.counters().live == 0);
            }
            Ok(())
        })
    }
}
