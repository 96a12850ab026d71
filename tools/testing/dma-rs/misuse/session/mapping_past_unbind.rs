// SPDX-License-Identifier: GPL-2.0
//@revisions: ok bad

//! A mapping is kept in a place that outlives the binding.
//!
//! C: `dma_unmap_single()` on a device that isn't bound any more compiles.
//! Shows: dma-debug, for PCI devices; behind an IOMMU, whose domain is gone.

use kernel::{
    device::{
        Core,
        Device, //
    },
    dma::{
        FromDevice,
        Mapper,
        Streaming, //
    },
    prelude::*, //
};

#[cfg(ok)]
type Kept<'a> = Streaming<'a, KVec<u8>, FromDevice>;
#[cfg(bad)]
type Kept<'a> = Streaming<'static, KVec<u8>, FromDevice>;

pub fn probe<'a>(dev: &Device<Core<'a>>, buf: KVec<u8>) -> Result<Kept<'a>> {
    let dma = Mapper::get(dev.bound())?;

    Ok(Streaming::map(dma, buf)?) //~[bad] ERROR: lifetime may not live long enough
}
