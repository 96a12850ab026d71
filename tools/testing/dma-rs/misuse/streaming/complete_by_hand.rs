// SPDX-License-Identifier: GPL-2.0
//@revisions: ok bad

//! The driver says by itself that the device is done.
//!
//! C: Who calls `dma_unmap_single()` says so, rightly or not.
//! Shows: As corruption, when the device was not.

use kernel::{
    dma::{
        FromDevice,
        Streaming,
        StreamingBox, //
    },
    prelude::*, //
};

pub fn done(
    buf: Streaming<'_, KVec<u8>, FromDevice>,
) -> Option<StreamingBox<'_, KVec<u8>, FromDevice>> {
    #[cfg(ok)]
    let buf = buf.take_back().ok();
    #[cfg(bad)]
    // SAFETY: Isn't met: nobody has seen that the device is done.
    let buf = Some(unsafe { buf.complete(0..64) }); //~[bad] E0624

    buf
}
