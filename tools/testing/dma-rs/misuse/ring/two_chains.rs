// SPDX-License-Identifier: GPL-2.0
//@revisions: ok bad

//! Two frames are described at a time, in the same descriptors.
//!
//! C: Both begin at `ring->tail`.
//! Shows: As mixed frames, under load.

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

pub fn begin<'a, Q: RingRegisters<Direction = ToDevice>>(tx: &mut Producer<'a, Q, KVec<u8>>) {
    let one = tx.new_chain();
    #[cfg(ok)]
    drop(one);
    let other = tx.new_chain(); //~[bad] E0499
    #[cfg(bad)]
    drop(one);

    drop(other);
}
