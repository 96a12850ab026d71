// SPDX-License-Identifier: GPL-2.0
//@revisions: ok bad

//! A buffer is mapped that the caller owns, and may free while the device uses it.
//!
//! C: The caller's `kfree()` compiles, whoever has mapped the memory.
//! Shows: As corruption of whatever gets the memory next; KASAN doesn't see a device write.
//! Says: `&mut [u8]` can't be mapped for DMA

use kernel::{
    dma::{
        FromDevice,
        Mapper,
        Streaming, //
    },
    prelude::*, //
};

#[cfg(ok)]
type Bytes<'b> = KVec<u8>;
#[cfg(bad)]
type Bytes<'b> = &'b mut [u8];

pub fn receive(dma: Mapper<'_>, buf: Bytes<'_>) {
    drop(Streaming::<_, FromDevice>::map(dma, buf)); //~[bad] E0277
}
