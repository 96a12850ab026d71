// SPDX-License-Identifier: GPL-2.0
//@revisions: ok bad

//! The driver looks at the descriptors as an array.
//!
//! C: `ring->desc[i].status` without `READ_ONCE()` or a barrier is what many drivers do.
//! Shows: On arm64 and others with weak order; or with the next compiler.

use kernel::{
    dma::{
        ring::{
            Consumer,
            RingRegisters, //
        },
        ToDevice, //
    },
    prelude::*, //
};

pub fn is_done<'a, Q: RingRegisters<Direction = ToDevice>>(
    tx: &mut Consumer<'a, Q, KVec<u8>>,
) -> bool {
    #[cfg(ok)]
    let done = tx.reap().is_some();
    #[cfg(bad)]
    let done = tx.layout.descriptors.is_empty(); //~[bad] E0616

    done
}
