// SPDX-License-Identifier: GPL-2.0
//@revisions: ok bad

//! The permission to map is kept in a place that outlives the binding.
//!
//! C: The `struct device *` is refcounted, so it stays; its IOMMU's domain doesn't.
//! Shows: As a warning of the IOMMU's code, or a crash.

use kernel::{
    device::{
        Core,
        Device, //
    },
    dma::Mapper,
    prelude::*, //
};

#[cfg(ok)]
type Kept<'a> = Mapper<'a>;
#[cfg(bad)]
type Kept<'a> = Mapper<'static>;

pub fn probe<'a>(dev: &Device<Core<'a>>) -> Result<Kept<'a>> {
    Mapper::get(dev.bound()) //~[bad] ERROR: lifetime may not live long enough
}
