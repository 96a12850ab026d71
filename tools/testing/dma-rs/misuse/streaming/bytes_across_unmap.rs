// SPDX-License-Identifier: GPL-2.0
//@revisions: ok bad

//! A reference to the mapped bytes is kept when the mapping is undone.
//!
//! C: The pointer stays, and the final sync of `dma_unmap_single()` changes what it points to.
//! Shows: With bounce buffers, or without cache coherence.

use kernel::{
    dma::{
        FromDevice,
        StreamingBox, //
    },
    prelude::*, //
};

pub fn end(buf: StreamingBox<'_, KVec<u8>, FromDevice>) -> (KVec<u8>, usize) {
    let bytes = buf.bytes();
    #[cfg(ok)]
    let len = bytes.len();
    let buf = buf.unmap(); //~[bad] E0505
    #[cfg(bad)]
    let len = bytes.len();

    (buf, len)
}
