// SPDX-License-Identifier: GPL-2.0
//@revisions: ok bad

//! Memory is mapped for a device that isn't bound.
//!
//! C: Whoever has a `struct device *` may map with it.
//! Shows: After unbind, when the IOMMU's domain is another driver's.

use kernel::{
    device::{
        self,
        Device, //
    },
    dma::Mapper,
    prelude::*, //
};

#[cfg(ok)]
type State = device::Bound;
#[cfg(bad)]
type State = device::Normal;

pub fn largest(dev: &Device<State>) -> Result<usize> {
    Ok(Mapper::get(dev)?.max_mapping_size()) //~[bad] E0308
}
