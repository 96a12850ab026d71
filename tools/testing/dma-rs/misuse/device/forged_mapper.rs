// SPDX-License-Identifier: GPL-2.0
//@revisions: ok bad

//! The permission to map for one device is turned into that for another one.
//!
//! C: `struct device *` is the permission; any will do.
//! Shows: Behind an IOMMU as a fault; or the other device's mask is too wide.

use kernel::{
    device::{
        Bound,
        Device, //
    },
    dma::Mapper,
    prelude::*, //
};

pub fn of_another<'a>(dma: Mapper<'a>, other: &'a Device<Bound>) -> Result<Mapper<'a>> {
    let _ = dma;
    #[cfg(ok)]
    let mapper = Mapper::get(other)?;
    #[cfg(bad)]
    let mapper = Mapper { dev: other, ..dma }; //~[bad] E0451

    Ok(mapper)
}
