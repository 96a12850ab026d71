// SPDX-License-Identifier: GPL-2.0
//@revisions: ok bad
//@compile-flags: --emit=obj

//! A pool has blocks of no bytes.
//!
//! C: `dma_pool_create()` returns NULL.
//! Shows: At the first probe.
//! Says: a block of no bytes

use kernel::{
    device::{
        Core,
        Device, //
    },
    dma::Pool,
    prelude::*, //
};

#[cfg(ok)]
type Block = u64;
#[cfg(bad)]
type Block = [u64; 0];

pub fn blocks<'a>(dev: &Device<Core<'a>>) -> Result<&'a Pool<'a, Block>> {
    Pool::with_layout::<8, 0>(dev, c"blocks") //~[bad] E0080
}
