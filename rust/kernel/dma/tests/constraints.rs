// SPDX-License-Identifier: GPL-2.0

//! Tests of the DMA set-up.

use super::{
    ensure,
    fixture, //
};
use crate::{
    device,
    dma::{
        Constraints,
        DmaMask,
        Mapper,
        Pool,
        Streaming,
        ToDevice, //
    },
    prelude::*, //
};

#[kunit_tests(rust_dma_constraints)]
mod cases {
    use super::*;

    /// What was asked for is what the device has, and says.
    #[test]
    fn set_up_is_applied() -> Result {
        let constraints = Constraints::new(DmaMask::new::<36>())
            .coherent_mask(DmaMask::new::<32>())
            .max_segment_size(8192)
            .segment_boundary(0xffff)
            .min_align_mask(0xfff);

        fixture::on_each_bus_set_up(Some(constraints), |pdev| {
            let dev: &device::Device<device::Bound> = pdev.as_ref();
            let dma = Mapper::get(dev)?;

            ensure!(dma.mask() == (1 << 36) - 1);
            ensure!(dma.max_mapping_size() > 0);

            // SAFETY: `dev` is valid and bound; nothing changes these fields meanwhile.
            let (coherent_mask, parms) = unsafe {
                (
                    (*dev.as_raw()).coherent_dma_mask,
                    *(*dev.as_raw()).dma_parms,
                )
            };

            ensure!(coherent_mask == (1 << 32) - 1);
            ensure!(parms.max_segment_size == 8192);
            ensure!(parms.segment_boundary_mask == 0xffff);
            ensure!(parms.min_align_mask == 0xfff);
            Ok(())
        })
    }

    /// A limit that isn't given is the kernel's own, whatever an earlier driver has set.
    #[test]
    fn limits_of_an_earlier_driver() -> Result {
        let constraints = Constraints::new(DmaMask::new::<64>());
        let tight = constraints
            .max_segment_size(8192)
            .segment_boundary(0xffff)
            .min_align_mask(0xfff);

        fixture::on_each_bus_set_up(Some(tight), |_| Ok(()))?;
        fixture::on_each_bus_set_up(Some(constraints), |pdev| {
            let dev: &device::Device<device::Bound> = pdev.as_ref();

            // SAFETY: `dev` is valid and bound; nothing changes these fields meanwhile.
            let parms = unsafe { *(*dev.as_raw()).dma_parms };

            ensure!(parms.max_segment_size == 0x1_0000);
            ensure!(parms.segment_boundary_mask == 0xffff_ffff);
            ensure!(parms.min_align_mask == 0);
            Ok(())
        })
    }

    /// A driver that says nothing can't map.
    #[test]
    fn no_set_up_no_mapping() -> Result {
        fixture::on_each_bus_set_up(None, |pdev| {
            let dev: &device::Device<device::Bound> = pdev.as_ref();

            ensure!(matches!(Mapper::get(dev), Err(e) if e == EINVAL));
            Ok(())
        })
    }

    /// A mask that the platform can't serve fails the probe: the body never runs.
    #[test]
    fn refused_mask_fails_the_probe() -> Result {
        let mut ran = false;
        let constraints = Constraints::new(DmaMask::new::<12>());
        let outcome = fixture::on_each_bus_set_up(Some(constraints), |_| {
            ran = true;
            Ok(())
        });

        ensure!(!ran && outcome.is_err());
        Ok(())
    }

    #[test]
    fn empty_mask_fails_the_probe() -> Result {
        let constraints = Constraints::new(DmaMask::new::<0>());
        let outcome = fixture::on_each_bus_set_up(Some(constraints), |_| Ok(()));

        ensure!(outcome.is_err());
        Ok(())
    }

    /// Limits that backends would stumble over.
    #[test]
    fn refused_limits() -> Result {
        let constraints = Constraints::new(DmaMask::new::<64>());

        for constraints in [
            constraints.segment_boundary(0x2fff),
            constraints.min_align_mask(0x5),
            constraints.min_align_mask(0x3_ffff),
        ] {
            let outcome = fixture::on_each_bus_set_up(Some(constraints), |_| Ok(()));

            ensure!(outcome == Err(ENODEV));
        }

        Ok(())
    }

    /// A mask that the machine refuses is refused for streaming mappings alone, too.
    #[test]
    fn refused_masks() -> Result {
        let narrow = Constraints::new(DmaMask::new::<12>());
        let set_up = |constraints| fixture::on_each_bus_set_up(Some(constraints), |_| Ok(()));
        let wider = set_up(narrow.coherent_mask(DmaMask::new::<32>()));

        // Behind an IOMMU any mask will do.
        ensure!(wider.is_err() == set_up(narrow).is_err());
        Ok(())
    }

    /// What a piece of memory must not cross, and where it must begin.
    #[test]
    fn admitted_pieces() -> Result {
        let none = Constraints::new(DmaMask::new::<64>());
        let bounded = none.segment_boundary(0xfff);

        for (constraints, addr, len, outcome) in [
            (bounded, 0x1000, 0x1000, Ok(())),
            (bounded, 0x1ff0, 0x10, Ok(())),
            (bounded, 0x1ff0, 0x11, Err(EINVAL)),
            (bounded, 0x1fff, 2, Err(EINVAL)),
            (bounded, 0x1000, 0x1001, Err(EINVAL)),
            (none.alignment(16), 0x1ff0, 0x11, Ok(())),
            (none.alignment(16), 0x1ff8, 1, Err(EINVAL)),
        ] {
            ensure!(constraints.admit(addr, len) == outcome);
        }

        Ok(())
    }

    /// The same set-up again is fine, another one is not.
    #[test]
    fn second_set_up() -> Result {
        let constraints = Constraints::new(DmaMask::new::<64>());

        fixture::on_each_bus_set_up(Some(constraints), |pdev| {
            constraints.apply(pdev.as_ref())?;
            ensure!(Constraints::new(DmaMask::new::<32>()).apply(pdev.as_ref()) == Err(EBUSY));

            let dma = Mapper::get(pdev.as_ref())?;
            ensure!(dma.mask() == u64::MAX);
            Ok(())
        })
    }

    /// Limits of segments hold for whatever is mapped or allocated, and what was offered comes
    /// back.
    #[test]
    fn limits_hold() -> Result {
        let none = Constraints::new(DmaMask::new::<64>());

        for (constraints, len, outcome) in [
            (none.max_segment_size(4096), 4096, Ok(())),
            (none.max_segment_size(4096), 4097, Err(EOVERFLOW)),
            // It crosses the boundary, wherever it lies.
            (none.segment_boundary(0xfff), 4097, Err(EINVAL)),
            (none.segment_boundary(usize::MAX), 4097, Ok(())),
            (none.alignment(1 << 31), 64, Err(EINVAL)),
            (none.alignment(8), 64, Ok(())),
        ] {
            fixture::on_each_bus_set_up(Some(constraints), |pdev| {
                let dma = Mapper::get(pdev.as_ref())?;
                let map = || {
                    Streaming::<_, ToDevice>::map(dma, KVec::from_elem(0_u8, len, GFP_KERNEL)?)
                        .or_else(|refused| {
                            ensure!(refused.value.len() == len);
                            Err(refused.error)
                        })
                };
                // Where addresses begin at a multiple of that, the first one is aligned.
                let first = map();
                let second = map();

                ensure!(second.map(drop) == outcome);
                ensure!(first.map(drop) == outcome || constraints == none.alignment(1 << 31));
                Ok(())
            })
            .inspect_err(|_| pr_err!("{constraints:?}, {len} bytes\n"))?;
        }

        Ok(())
    }

    /// A pool is made such that all its blocks meet the limits, or not at all.
    #[test]
    fn limits_hold_for_blocks() -> Result {
        let none = Constraints::new(DmaMask::new::<64>());

        // The alignment, the boundary, and what comes of it, for blocks of 24 bytes.
        for (constraints, align, boundary, outcome) in [
            (none, 1, 0, Ok(())),
            (none.max_segment_size(24), 1, 0, Ok(())),
            (none.max_segment_size(23), 1, 0, Err(EOVERFLOW)),
            (none.alignment(64), 64, 0, Ok(())),
            (none.alignment(4096), 4096, 0, Ok(())),
            (none.alignment(1 << 31), 1, 0, Err(EINVAL)),
            (none.segment_boundary(0x3f), 1, 0x40, Ok(())),
            (none.segment_boundary(0x1f), 1, 0x20, Ok(())),
            (none.segment_boundary(0xf), 1, 0, Err(EINVAL)),
            (none.segment_boundary(0x1f).alignment(64), 1, 0, Err(EINVAL)),
            (none.segment_boundary(usize::MAX), 1, 0, Ok(())),
        ] {
            fixture::on_each_bus_set_up(Some(constraints), |pdev| {
                let pool = match Pool::<[u8; 24]>::new(pdev.as_ref(), c"blocks") {
                    Ok(pool) => pool,
                    Err(error) => {
                        ensure!(outcome == Err(error));
                        return Ok(());
                    }
                };
                let mut blocks = KVec::new();

                ensure!(outcome.is_ok());

                for _ in 0..10 {
                    let block = pool.alloc(GFP_KERNEL)?;
                    let (first, last) = (block.raw_address(), block.raw_address() + 23);

                    ensure!(first % align == 0);
                    ensure!(boundary == 0 || first / boundary == last / boundary);
                    ensure!(constraints.admit(first, 24).is_ok());
                    blocks.push(block, GFP_KERNEL)?;
                }
                Ok(())
            })
            .inspect_err(|_| pr_err!("{constraints:?}\n"))?;
        }

        // What the driver demands of the pool holds, too, whichever is stricter. Blocks of 72 bytes
        // are 96 bytes apart then, and the third would cross a boundary of 256.
        fixture::on_each_bus_set_up(Some(none.segment_boundary(0xff).alignment(32)), |pdev| {
            let wider = Pool::<[u8; 72]>::with_layout::<16, 512>(pdev.as_ref(), c"wider")?;
            let stricter = Pool::<[u8; 72]>::with_layout::<64, 128>(pdev.as_ref(), c"stricter")?;
            let mut blocks = KVec::new();

            for (pool, align, boundary) in [(wider, 32, 256), (stricter, 64, 128)] {
                for _ in 0..10 {
                    let block = pool.alloc(GFP_KERNEL)?;
                    let (first, last) = (block.raw_address(), block.raw_address() + 71);

                    ensure!(first % align == 0 && first / boundary == last / boundary);
                    blocks.push(block, GFP_KERNEL)?;
                }
            }
            Ok(())
        })
    }

    /// Whether a device may be used under constraints, by what its hardware takes.
    #[test]
    fn within_the_hardware() -> Result {
        let wide = Constraints::new(DmaMask::new::<64>());
        let narrow = Constraints::new(DmaMask::new::<28>());

        for (ours, hardware, fits) in [
            (wide, wide, true),
            (narrow, wide, true),
            (wide, narrow, false),
            (narrow, narrow, true),
            (wide.coherent_mask(DmaMask::new::<28>()), narrow, false),
            (narrow, wide.coherent_mask(DmaMask::new::<24>()), false),
            (wide.max_segment_size(10), wide, true),
            (wide.max_segment_size(10), wide.max_segment_size(10), true),
            (wide.max_segment_size(11), wide.max_segment_size(10), false),
            (wide, wide.max_segment_size(10), false),
            (wide, wide.segment_boundary(0xffff), false),
            (
                wide.segment_boundary(0xfff),
                wide.segment_boundary(0xffff),
                true,
            ),
            (
                wide.segment_boundary(0xfffff),
                wide.segment_boundary(0xffff),
                false,
            ),
            (wide, wide.min_align_mask(0xfff), false),
            (
                wide.min_align_mask(0x1ff),
                wide.min_align_mask(0xfff),
                false,
            ),
            (wide.min_align_mask(0xfff), wide.min_align_mask(0xfff), true),
            (wide.min_align_mask(0xfff), wide, true),
            (wide, wide.alignment(16), false),
            (wide.alignment(16), wide.alignment(16), true),
            (wide.alignment(32), wide.alignment(16), true),
        ] {
            ensure!(ours.are_within(&hardware) == fits);
        }

        Ok(())
    }
}

/// What the C side says, on simulated buses.
#[cfg(CONFIG_RUST_DMA_SIM)]
#[kunit_tests(rust_dma_constraints_sim)]
mod on_sim {
    use super::*;
    use crate::{
        alloc::NumaNode,
        dma::sim::{
            self,
            Model,
            Script, //
        }, //
    };

    /// What the C side says about a device reaches the driver.
    #[test]
    fn answers() -> Result {
        for model in Model::ALL {
            for (mask, limited) in [
                (DmaMask::new::<24>(), true),
                (DmaMask::new::<32>(), false),
                (DmaMask::new::<64>(), false),
            ] {
                sim::run(
                    Script::new(model).constraints(Constraints::new(mask)),
                    |pdev, _| {
                        let dma = Mapper::get(pdev.as_ref())?;

                        ensure!(dma.mask() == mask.value());
                        ensure!(dma.is_addressing_limited() == limited);
                        // What C says of a bus that has no opinion.
                        ensure!(dma.required_mask() == u32::MAX.into());
                        ensure!(dma.merge_boundary().is_none());
                        ensure!(dma.opt_mapping_size() == dma.max_mapping_size());
                        ensure!(dma.needs_sync());
                        ensure!(dma.node() == NumaNode::NO_NODE);
                        ensure!(Mapper::cache_alignment().is_power_of_two());
                        ensure!(Mapper::cache_alignment() > 1 || cfg!(CONFIG_X86));
                        // On x86 no device is anything else.
                        ensure!(
                            dma.is_coherent() == (model != Model::NonCoherent || cfg!(CONFIG_X86))
                        );
                        Ok(())
                    },
                )?;
            }
        }

        Ok(())
    }
}
