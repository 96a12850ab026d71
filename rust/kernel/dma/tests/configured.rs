// SPDX-License-Identifier: GPL-2.0

//! Tests of the DMA set-up.

use super::{
    ensure,
    fixture, //
};
use crate::{
    device,
    dma::{
        Configured,
        DmaMask,
        Setup, //
    },
    prelude::*, //
};

#[kunit_tests(rust_dma_configured)]
mod cases {
    use super::*;

    /// What was asked for is what the device has, and says.
    #[test]
    fn set_up_is_applied() -> Result {
        let setup = Setup::new(DmaMask::new::<36>())
            .coherent_mask(DmaMask::new::<32>())
            .max_segment_size(8192)
            .segment_boundary(0xffff)
            .min_align_mask(0xfff);

        fixture::on_each_bus_set_up(Some(setup), |pdev| {
            let dev: &device::Device<device::Bound> = pdev.as_ref();
            let dma = Configured::get(dev)?;

            ensure!(dma.mask() == (1 << 36) - 1);
            ensure!(dma.max_mapping_size() > 0);
            ensure!(dma.opt_mapping_size() > 0);

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

    /// A driver that says nothing can't map.
    #[test]
    fn no_set_up_no_mapping() -> Result {
        fixture::on_each_bus_set_up(None, |pdev| {
            let dev: &device::Device<device::Bound> = pdev.as_ref();

            ensure!(matches!(Configured::get(dev), Err(e) if e == EINVAL));
            Ok(())
        })
    }

    /// A mask that the platform can't serve fails the probe: the body never runs.
    #[test]
    fn refused_mask_fails_the_probe() -> Result {
        let mut ran = false;
        let setup = Setup::new(DmaMask::new::<12>());
        let outcome = fixture::on_each_bus_set_up(Some(setup), |_| {
            ran = true;
            Ok(())
        });

        ensure!(!ran && outcome.is_err());
        Ok(())
    }

    #[test]
    fn empty_mask_fails_the_probe() -> Result {
        let setup = Setup::new(DmaMask::new::<0>());
        let outcome = fixture::on_each_bus_set_up(Some(setup), |_| Ok(()));

        ensure!(outcome.is_err());
        Ok(())
    }

    /// Limits that backends would stumble over.
    #[test]
    fn refused_limits() -> Result {
        let setup = Setup::new(DmaMask::new::<64>());

        for setup in [
            setup.segment_boundary(0x2fff),
            setup.min_align_mask(0x5),
            setup.min_align_mask(0x3_ffff),
        ] {
            let outcome = fixture::on_each_bus_set_up(Some(setup), |_| Ok(()));

            ensure!(outcome == Err(ENODEV));
        }

        Ok(())
    }

    /// The same set-up again is fine, another one is not.
    #[test]
    fn second_set_up() -> Result {
        let setup = Setup::new(DmaMask::new::<64>());

        fixture::on_each_bus_set_up(Some(setup), |pdev| {
            setup.apply(pdev.as_ref(), false)?;
            ensure!(Setup::new(DmaMask::new::<32>()).apply(pdev.as_ref(), false) == Err(EBUSY));

            let dma = Configured::get(pdev.as_ref())?;
            ensure!(dma.mask() == u64::MAX);
            Ok(())
        })
    }

    /// What the C side says about a device reaches the driver.
    #[cfg(CONFIG_RUST_DMA_SIM)]
    #[test]
    fn answers() -> Result {
        use crate::dma::sim::{
            self,
            Model,
            Script, //
        };

        for model in Model::ALL {
            for (mask, limited) in [
                (DmaMask::new::<24>(), true),
                (DmaMask::new::<32>(), false),
                (DmaMask::new::<64>(), false),
            ] {
                sim::run(Script::new(model).setup(Setup::new(mask)), |pdev, _| {
                    let dma = Configured::get(pdev.as_ref())?;

                    ensure!(dma.mask() == mask.value());
                    ensure!(dma.addressing_limited() == limited);
                    ensure!(dma.need_sync());
                    // On x86 no device is anything else.
                    ensure!(dma.is_coherent() == (model != Model::NonCoherent || cfg!(CONFIG_X86)));
                    Ok(())
                })?;
            }
        }

        Ok(())
    }
}
