// SPDX-License-Identifier: GPL-2.0
//@revisions: ok bad

//! The doorbell is rung by hand, for descriptors that weren't posted.
//!
//! C: `writel(tail, ring->tail)` compiles anywhere.
//! Shows: As frames that were sent before, sent again.

use kernel::{
    dma::{
        ring::{
            Producer,
            RingRegisters, //
        },
        ToDevice, //
    },
    prelude::*, //
};

pub fn ring<'a, Q: RingRegisters<Direction = ToDevice>>(
    tx: &mut Producer<'a, Q, KVec<u8>>,
) -> Result {
    #[cfg(bad)]
    tx.queue().doorbell(7); //~[bad] E0308
    tx.kick()
}
