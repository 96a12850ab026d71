// SPDX-License-Identifier: GPL-2.0
//@revisions: ok bad

//! A mapping is undone twice, for instance in an error path.
//!
//! C: `dma_unmap_single()` twice compiles.
//! Shows: dma-debug, if it is on; behind an IOMMU another mapping goes, later.

use kernel::{
    dma::{
        FromDevice,
        StreamingBox, //
    },
    prelude::*, //
};

pub fn end(buf: StreamingBox<'_, KVec<u8>, FromDevice>) {
    drop(buf.unmap());
    #[cfg(bad)]
    drop(buf.unmap()); //~[bad] E0382
}
