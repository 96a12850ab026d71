// SPDX-License-Identifier: GPL-2.0
//@revisions: ok bad

//! A value in `vmalloc()` memory is mapped.
//!
//! C: `dma_map_single()` takes any pointer.
//! Shows: A warning and an error of the DMA core; on old kernels a foreign page is written.

use kernel::{
    dma::{
        FromDevice,
        Mapper,
        Streaming, //
    },
    prelude::*, //
};

#[cfg(ok)]
type Page = KBox<[u8; 4096]>;
#[cfg(bad)]
type Page = VBox<[u8; 4096]>;

pub fn receive(dma: Mapper<'_>, buf: Page) {
    drop(Streaming::<_, FromDevice>::map(dma, buf)); //~[bad] E0277
}
