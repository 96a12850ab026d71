// SPDX-License-Identifier: GPL-2.0
//@revisions: ok bad
//@compile-flags: --emit=obj

//! An alignment isn't a power of two.
//!
//! C: `dma_pool_create()` returns NULL.
//! Shows: At the first probe.
//! Says: alignment and boundary must be powers of two

use kernel::{
    device::{
        Core,
        Device, //
    },
    dma::Pool,
    prelude::*, //
};

#[cfg(ok)]
const ALIGN: usize = 64;
#[cfg(bad)]
const ALIGN: usize = 48;

pub fn blocks<'a>(dev: &Device<Core<'a>>) -> Result<&'a Pool<'a, u64>> {
    Pool::with_layout::<ALIGN, 0>(dev, c"blocks") //~[bad] E0080
}
