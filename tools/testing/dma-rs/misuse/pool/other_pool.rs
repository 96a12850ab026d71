// SPDX-License-Identifier: GPL-2.0
//@revisions: ok bad

//! A block is given back to another pool than it came from.
//!
//! C: The pool is an argument of `dma_pool_free()`.
//! Shows: As a corrupted list of free blocks; with `CONFIG_SLUB_DEBUG_ON` as a message.

use kernel::dma::{
    Pool,
    PoolBox, //
};

pub fn give_back<'a>(other: &'a Pool<'a, u64>, block: PoolBox<'a, u64>) {
    let _ = other;
    #[cfg(ok)]
    drop(block);
    #[cfg(bad)]
    other.free(block); //~[bad] E0599
}
