// SPDX-License-Identifier: GPL-2.0
//@revisions: ok bad

//! A block is given to the device, and dropped in the same line.
//!
//! C: No such notion: the block leaks.
//! Shows: As a leak, or as a block that the device reads after somebody else got it.
//! Says: dropping it quarantines the block

#![deny(unused_must_use)]

use kernel::dma::{
    PoolBox,
    PoolEntry, //
};

pub fn send<'a>(block: PoolBox<'a, u64>, to: impl FnOnce(PoolEntry<'a, u64>)) {
    let _ = &to;
    #[cfg(ok)]
    to(block.submit());
    #[cfg(bad)]
    block.submit(); //~[bad] unused_must_use
}
