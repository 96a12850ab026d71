// SPDX-License-Identifier: GPL-2.0
//@revisions: ok bad

//! A mapping skips its sync, or claims to be about registers, by an attribute.
//!
//! C: `DMA_ATTR_SKIP_CPU_SYNC` and `DMA_ATTR_MMIO` are bits of an `unsigned long`, for any
//!   call.
//! Shows: With bounce buffers, or without cache coherence.

use kernel::{
    dma::{
        attrs,
        Mapper,
        Streaming,
        ToDevice, //
    },
    prelude::*, //
};

pub fn send(dma: Mapper<'_>, buf: KVec<u8>) {
    let _ = attrs::DMA_ATTR_NO_WARN;
    #[cfg(ok)]
    let mapped = Streaming::<_, ToDevice>::map(dma, buf);
    #[cfg(bad)]
    let mapped = Streaming::<_, ToDevice>::map(dma, buf, attrs::DMA_ATTR_MMIO); //~[bad] E0061

    drop(mapped);
}
