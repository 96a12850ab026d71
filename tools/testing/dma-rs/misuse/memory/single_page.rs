// SPDX-License-Identifier: GPL-2.0
//@revisions: ok bad

//! A page is mapped that may be in high memory, with no address that the kernel can use.
//!
//! C: `dma_map_single(dev, page_address(page), ...)` compiles, with a null pointer.
//! Shows: On 32-bit machines with more than about 900 MiB.

use kernel::{
    dma::{
        FromDevice,
        Mapper,
        Streaming, //
    },
    prelude::*, //
};

#[cfg(ok)]
type Memory = kernel::dma::Pages;
#[cfg(bad)]
type Memory = kernel::page::Page;

pub fn receive(dma: Mapper<'_>, page: Memory) -> Result {
    drop(Streaming::<_, FromDevice>::map(dma, page)); //~[bad] E0277
    Ok(())
}
