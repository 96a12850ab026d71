// SPDX-License-Identifier: GPL-2.0
//@revisions: ok bad

//! Coherent memory is asked for with a flag that the DMA core refuses.
//!
//! C: `dma_alloc_coherent(..., GFP_KERNEL | __GFP_COMP)` compiles.
//! Shows: As a warning and NULL.

use kernel::{
    dma::{
        Pool,
        PoolBox, //
    },
    prelude::*, //
};

pub fn block<'a>(pool: &'a Pool<'a, u64>) -> Result<PoolBox<'a, u64>> {
    #[cfg(ok)]
    let flags = GFP_KERNEL;
    #[cfg(bad)]
    let flags = GFP_KERNEL | __GFP_COMP; //~[bad] E0425

    pool.alloc(flags)
}
