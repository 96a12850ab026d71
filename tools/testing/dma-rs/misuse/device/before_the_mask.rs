// SPDX-License-Identifier: GPL-2.0
//@revisions: ok bad

//! A buffer is mapped before the device's mask was set.
//!
//! C: Most drivers work with the 32 bits that are there at first.
//! Shows: Where memory is beyond them: bounces that nobody wanted, or none that is needed.

use kernel::{
    dma::{
        Constraints,
        DmaMask, //
    },
    pci,
    prelude::*, //
};

pub fn dma_constraints(dev: &pci::Device) -> Result<Constraints> {
    #[cfg(bad)]
    let _ = kernel::dma::Mapper::get(dev.as_ref())?; //~[bad] E0308
    #[cfg(ok)]
    let _ = dev;
    Ok(Constraints::new(DmaMask::new::<64>()))
}
