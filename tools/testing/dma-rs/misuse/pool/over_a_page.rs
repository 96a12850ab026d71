// SPDX-License-Identifier: GPL-2.0
//@revisions: ok bad
//@compile-flags: --emit=obj

//! A pool has blocks that are larger than a page, which aren't contiguous where they end.
//!
//! C: `dma_pool_create()` takes any size, and backends align to a page only.
//! Shows: Where the backend's pages aren't in a row.
//! Says: a block is at most a page

use kernel::{
    device::{
        Core,
        Device, //
    },
    dma::Pool,
    prelude::*, //
};

#[cfg(ok)]
type Block = [u64; 8];
#[cfg(bad)]
type Block = [u64; 8 << 16];

pub fn blocks<'a>(dev: &Device<Core<'a>>) -> Result<&'a Pool<'a, Block>> {
    Pool::with_layout::<8, 0>(dev, c"blocks") //~[bad] E0080
}
