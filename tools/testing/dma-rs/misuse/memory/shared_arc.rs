// SPDX-License-Identifier: GPL-2.0
//@revisions: ok bad

//! Memory with other owners is mapped for the device to write.
//!
//! C: The other owners aren't asked.
//! Shows: As a data race between the CPU and the device; KCSAN doesn't see devices.
//! Says: `Arc<[u8; 64]>` can't be mapped for DMA

use kernel::{
    dma::{
        FromDevice,
        Mapper,
        Streaming, //
    },
    prelude::*, //
};

#[cfg(ok)]
type Bytes = KBox<[u8; 64]>;
#[cfg(bad)]
type Bytes = kernel::sync::Arc<[u8; 64]>;

pub fn receive(dma: Mapper<'_>, buf: Bytes) {
    drop(Streaming::<_, FromDevice>::map(dma, buf)); //~[bad] E0277
}
