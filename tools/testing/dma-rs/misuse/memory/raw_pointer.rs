// SPDX-License-Identifier: GPL-2.0
//@revisions: ok bad

//! A pointer is mapped.
//!
//! C: `void *` is what is mapped.
//! Shows: Whenever the pointer is wrong, on the machine where it is.
//! Says: `*mut u8` can't be mapped for DMA

use kernel::{
    dma::{
        Mapper,
        Streaming,
        ToDevice, //
    },
    prelude::*, //
};

#[cfg(ok)]
type Bytes = KVec<u8>;
#[cfg(bad)]
type Bytes = *mut u8;

pub fn send(dma: Mapper<'_>, buf: Bytes) -> Result {
    drop(Streaming::<_, ToDevice>::map(dma, buf)); //~[bad] E0277
    Ok(())
}
