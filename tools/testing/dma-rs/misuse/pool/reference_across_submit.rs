// SPDX-License-Identifier: GPL-2.0
//@revisions: ok bad

//! A reference to a block is kept while the device may write it.
//!
//! C: Pointers to coherent memory are kept as a matter of course; the compiler may read once
//!   only.
//! Shows: As a loop that never sees the device's answer.

use kernel::dma::{
    PoolBox,
    PoolEntry, //
};

pub fn send(block: PoolBox<'_, [u32; 4]>) -> (PoolEntry<'_, [u32; 4]>, u32) {
    let words: &[u32; 4] = &block;
    #[cfg(ok)]
    let first = words[0];
    let sent = block.submit(); //~[bad] E0505
    #[cfg(bad)]
    let first = words[0];

    (sent, first)
}
