// SPDX-License-Identifier: GPL-2.0
//@revisions: ok bad

//! A buffer is mapped that `kvmalloc()` may have taken from `vmalloc()`.
//!
//! C: It works for small sizes, for which `kmalloc()` succeeds.
//! Shows: With large sizes, or when memory is fragmented.
//! Says: `Vec<u8, KVmalloc>` can't be mapped for DMA

use kernel::{
    dma::{
        FromDevice,
        Mapper,
        Streaming, //
    },
    prelude::*, //
};

#[cfg(ok)]
type Bytes = KVec<u8>;
#[cfg(bad)]
type Bytes = KVVec<u8>;

pub fn receive(dma: Mapper<'_>, buf: Bytes) {
    drop(Streaming::<_, FromDevice>::map(dma, buf)); //~[bad] E0277
}
