// SPDX-License-Identifier: GPL-2.0
//@revisions: ok bad

//! The driver says by itself that the device is done with a block.
//!
//! C: Who calls `dma_pool_free()` says so, rightly or not.
//! Shows: As a corrupted list of free blocks, which lie inside of the blocks.

use kernel::dma::{
    PoolBox,
    PoolEntry, //
};

pub enum Block<'a> {
    Cpu(PoolBox<'a, u64>),
    Device(PoolEntry<'a, u64>),
}

pub fn back(entry: PoolEntry<'_, u64>) -> Block<'_> {
    // A protocol that has seen the completion does it. Dropped, it is kept until the device stops.
    #[cfg(ok)]
    let block = Block::Device(entry);
    #[cfg(bad)]
    let block = Block::Cpu(entry.complete()); //~[bad] E0133

    block
}
