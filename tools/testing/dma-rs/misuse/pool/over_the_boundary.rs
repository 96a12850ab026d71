// SPDX-License-Identifier: GPL-2.0
//@revisions: ok bad
//@compile-flags: --emit=obj

//! A block is longer than the boundary that it mustn't cross.
//!
//! C: `dma_pool_create()` returns NULL.
//! Shows: At the first probe.
//! Says: a block doesn't fit inside of the boundary

use kernel::{
    device::{
        Core,
        Device, //
    },
    dma::Pool,
    prelude::*, //
};

#[cfg(ok)]
const BOUNDARY: usize = 4096;
#[cfg(bad)]
const BOUNDARY: usize = 32;

pub fn blocks<'a>(dev: &Device<Core<'a>>) -> Result<&'a Pool<'a, [u64; 8]>> {
    Pool::with_layout::<64, BOUNDARY>(dev, c"blocks") //~[bad] E0080
}
