// SPDX-License-Identifier: GPL-2.0
//@revisions: ok bad

//! Memory that the device may write is used as a slice.
//!
//! C: `memcpy()` from coherent memory, of which the compiler believes that it doesn't change.
//! Shows: As a value that changes between check and use.

#[cfg(ok)]
use kernel::dma::dma_read;
use kernel::{
    dma::PoolEntry,
    prelude::*, //
};

pub fn first(entry: &PoolEntry<'_, [u32; 4]>) -> Result<u32> {
    #[cfg(ok)]
    return dma_read!(entry, [build: 0]).at_most(100);
    #[cfg(bad)]
    entry[0].checked_sub(100).ok_or(EINVAL) //~[bad] E0608
}
