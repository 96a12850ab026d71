// SPDX-License-Identifier: GPL-2.0
//@revisions: ok bad

//! A mapping is undone for another device than it was made for.
//!
//! C: The device is an argument of both calls.
//! Shows: dma-debug, if it is on; behind an IOMMU.

use kernel::{
    dma::{
        FromDevice,
        Mapper,
        StreamingBox, //
    },
    prelude::*, //
};

pub fn end(other: Mapper<'_>, buf: StreamingBox<'_, KVec<u8>, FromDevice>) -> KVec<u8> {
    let _ = other;
    #[cfg(ok)]
    let buf = buf.unmap();
    #[cfg(bad)]
    let buf = buf.unmap(other); //~[bad] E0061

    buf
}
