// SPDX-License-Identifier: GPL-2.0
//@revisions: ok bad

//! Memory that the device may write is used as a slice.
//!
//! C: `memcpy()` from coherent memory, of which the compiler believes that it doesn't change.
//! Shows: As a value that changes between check and use.

use kernel::dma::PoolEntry;
#[cfg(ok)]
use kernel::io::Io;

pub fn sum(entry: &PoolEntry<'_, [u32; 4]>) -> u32 {
    #[cfg(ok)]
    let words = entry.copy_read();
    #[cfg(bad)]
    let words: &[u32] = &entry[..]; //~[bad] E0608

    words.iter().sum()
}
