// SPDX-License-Identifier: GPL-2.0
//@revisions: ok bad

//! The address of a block is kept when the block is gone.
//!
//! C: The handle is a number.
//! Shows: As a write of the device to a free block, in which the list of free blocks is.

use kernel::dma::PoolEntry;

pub fn show(entry: PoolEntry<'_, u64>, mut show: impl FnMut(usize)) {
    let address = entry.address();
    #[cfg(ok)]
    show(address.len());
    drop(entry); //~[bad] E0505
    #[cfg(bad)]
    show(address.len());
}
