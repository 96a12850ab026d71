// SPDX-License-Identifier: GPL-2.0
//@revisions: ok bad

//! What the device has written is read without a sync.
//!
//! C: The buffer's pointer is at hand, so the missing `dma_sync_single_for_cpu()` isn't missed.
//! Shows: With bounce buffers, or without cache coherence; never on most x86 machines.

use kernel::{
    dma::{
        FromDevice,
        Streaming, //
    },
    prelude::*, //
};

pub fn first(buf: Streaming<'_, KVec<u8>, FromDevice>) -> Option<u8> {
    // It comes back from the protocol that saw the device finish, or, not shown to the device:
    #[cfg(ok)]
    let buf = buf.take_back().ok()?;

    buf.bytes().first().copied() //~[bad] E0599
}
