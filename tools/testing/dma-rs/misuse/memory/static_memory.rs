// SPDX-License-Identifier: GPL-2.0
//@revisions: ok bad

//! A static of the driver is mapped.
//!
//! C: `dma_map_single(dev, table, ...)` compiles for a static array.
//! Shows: In a module it lies in `vmalloc()` memory, so a wrong page is mapped; built in, it
//!   often works.
//! Says: `&[u8; 64]` can't be mapped for DMA

use kernel::{
    dma::{
        Mapper,
        Streaming,
        ToDevice, //
    },
    prelude::*, //
};

static TABLE: [u8; 64] = [1; 64];

pub fn send(dma: Mapper<'_>) -> Result {
    #[cfg(ok)]
    let buf = KBox::new(TABLE, GFP_KERNEL)?;
    #[cfg(bad)]
    let buf = &TABLE;
    drop(Streaming::<_, ToDevice>::map(dma, buf)); //~[bad] E0277
    Ok(())
}
