// SPDX-License-Identifier: GPL-2.0
//@revisions: ok bad

//! A `vmalloc()` buffer is mapped.
//!
//! C: `virt_to_page()` of such an address is nonsense, which the compiler doesn't know.
//! Shows: As a warning of the DMA core and a failed mapping; on old kernels a foreign page is
//!   written.
//! Says: `Vec<u8, Vmalloc>` can't be mapped for DMA

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
type Bytes = VVec<u8>;

pub fn receive(dma: Mapper<'_>, buf: Bytes) {
    drop(Streaming::<_, FromDevice>::map(dma, buf)); //~[bad] E0277
}
