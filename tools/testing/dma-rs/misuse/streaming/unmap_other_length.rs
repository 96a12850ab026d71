// SPDX-License-Identifier: GPL-2.0
//@revisions: ok bad

//! A mapping is undone with another length than it was made with.
//!
//! C: The length is an argument of both calls.
//! Shows: dma-debug, if it is on; behind an IOMMU pages stay mapped, or others go.

use kernel::{
    dma::{
        FromDevice,
        StreamingBox, //
    },
    prelude::*, //
};

pub fn end(buf: StreamingBox<'_, KVec<u8>, FromDevice>) -> KVec<u8> {
    #[cfg(ok)]
    let buf = buf.unmap();
    #[cfg(bad)]
    let buf = buf.unmap(2048); //~[bad] E0061

    buf
}
