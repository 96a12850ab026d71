// SPDX-License-Identifier: GPL-2.0
//@revisions: ok bad

//! A buffer that was sent comes back as one that was received.
//!
//! C: `dma_unmap_single(..., DMA_FROM_DEVICE)` compiles for it.
//! Shows: dma-debug, if it is on; without cache coherence.

use kernel::{
    dma::{
        transfer::{
            Engine,
            Transfer, //
        },
        StreamingBox,
        ToDevice, //
    },
    prelude::*,
    time::Delta, //
};

#[cfg(ok)]
type Way = ToDevice;
#[cfg(bad)]
type Way = kernel::dma::FromDevice;

pub fn end<'a, E: Engine>(
    transfer: Transfer<'_, 'a, E, KVec<u8>, ToDevice>,
) -> Result<StreamingBox<'a, KVec<u8>, Way>> {
    transfer.wait_polling(Delta::from_micros(10), Delta::from_millis(1)) //~[bad] E0308
}
