// SPDX-License-Identifier: GPL-2.0
//@revisions: ok bad

//! A buffer on the stack is mapped.
//!
//! C: `dma_map_single(dev, &buf, ...)` compiles for any pointer.
//! Shows: With `VMAP_STACK` a wrong page is mapped; dma-debug warns. Elsewhere it seems to
//!   work.
//! Says: `[u8; 64]` can't be mapped for DMA

use kernel::{
    dma::{
        Mapper,
        Streaming,
        ToDevice, //
    },
    prelude::*, //
};

pub fn send(dma: Mapper<'_>) -> Result {
    #[cfg(ok)]
    let buf = KBox::new([0_u8; 64], GFP_KERNEL)?;
    #[cfg(bad)]
    let buf = [0_u8; 64];
    drop(Streaming::<_, ToDevice>::map(dma, buf)); //~[bad] E0277
    Ok(())
}
