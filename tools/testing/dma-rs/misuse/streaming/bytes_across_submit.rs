// SPDX-License-Identifier: GPL-2.0
//@revisions: ok bad

//! A reference to the bytes is kept while the device has the buffer.
//!
//! C: `struct header *h = buf;` stays valid, as far as the compiler knows.
//! Shows: As a header that changes between check and use; or with bounce buffers.

use kernel::{
    dma::{
        FromDevice,
        Streaming,
        StreamingBox, //
    },
    prelude::*, //
};

pub fn again<'a>(
    buf: StreamingBox<'a, KVec<u8>, FromDevice>,
) -> (Streaming<'a, KVec<u8>, FromDevice>, usize) {
    let bytes = buf.bytes();
    #[cfg(ok)]
    let len = bytes.len();
    let posted = buf.submit(); //~[bad] E0505
    #[cfg(bad)]
    let len = bytes.len();

    (posted, len)
}
