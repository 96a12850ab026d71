// SPDX-License-Identifier: GPL-2.0
//@revisions: ok bad

//! The CPU writes to a block as if it owned it, after the device got it.
//!
//! C: Coherent memory is always at hand.
//! Shows: As a torn descriptor, if the device looks in between.

use kernel::dma::{
    PoolBox,
    PoolEntry, //
};

pub fn send(mut block: PoolBox<'_, [u32; 4]>) -> PoolEntry<'_, [u32; 4]> {
    #[cfg(ok)]
    block.fill(1);
    let sent = block.submit();
    #[cfg(bad)]
    block.fill(1); //~[bad] E0382

    sent
}
