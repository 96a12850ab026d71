// SPDX-License-Identifier: GPL-2.0
//@revisions: ok bad

//! Memory is taken from the legacy zone for the device's sake.
//!
//! C: `kmalloc(size, GFP_DMA)` gives memory below 16 MiB, which is short, and still needs a
//!   mapping.
//! Shows: On machines whose zone is another, or is exhausted.

use kernel::{
    dma::{
        Mapper,
        Streaming,
        ToDevice, //
    },
    prelude::*, //
};

pub fn send(dma: Mapper<'_>) -> Result {
    // The mask decides, and the mapping bounces where it must.
    #[cfg(ok)]
    let flags = GFP_KERNEL;
    #[cfg(bad)]
    let flags = GFP_KERNEL | GFP_DMA; //~[bad] E0425
    let buf = KVec::from_elem(0_u8, 64, flags)?;

    drop(Streaming::<_, ToDevice>::map(dma, buf)?);
    Ok(())
}
