// SPDX-License-Identifier: GPL-2.0
//@revisions: ok bad

//! A mapping is used after it was undone.
//!
//! C: The `dma_addr_t` is a number that nobody takes away.
//! Shows: As a fault behind an IOMMU; elsewhere as corruption.

use kernel::{
    dma::{
        FromDevice,
        StreamingBox, //
    },
    prelude::*, //
};

pub fn first(buf: StreamingBox<'_, KVec<u8>, FromDevice>) -> Option<u8> {
    #[cfg(ok)]
    let first = buf.bytes().first().copied();
    drop(buf.unmap());
    #[cfg(bad)]
    let first = buf.bytes().first().copied(); //~[bad] E0382

    first
}
