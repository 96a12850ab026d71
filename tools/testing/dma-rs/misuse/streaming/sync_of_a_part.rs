// SPDX-License-Identifier: GPL-2.0
//@revisions: ok bad

//! The driver syncs a part of a mapping by its own arithmetic.
//!
//! C: `dma_sync_single_range_for_cpu()` with an offset or a length too short compiles.
//! Shows: With bounce buffers, or without cache coherence.

use kernel::{
    dma::{
        FromDevice,
        StreamingBox, //
    },
    prelude::*, //
};

pub fn header(buf: &mut StreamingBox<'_, KVec<u8>, FromDevice>) -> usize {
    // What is shown was synced.
    #[cfg(bad)]
    buf.sync_for_cpu(0..14); //~[bad] E0599
    buf.bytes().len()
}
