// SPDX-License-Identifier: GPL-2.0
//@revisions: ok bad

//! A pool is destroyed before its blocks were given back.
//!
//! C: `dma_pool_destroy()` compiles at any time.
//! Shows: As a message that blocks are busy, and a leak.

use kernel::dma::{
    Pool,
    PoolEntry, //
};

pub fn end<'a>(pool: &'a Pool<'a, u64>, block: PoolEntry<'a, u64>) {
    #[cfg(bad)]
    drop::<Pool<'_, u64>>(*pool); //~[bad] E0507
    let _ = pool;
    drop(block);
}
