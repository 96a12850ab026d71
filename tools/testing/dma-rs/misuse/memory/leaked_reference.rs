// SPDX-License-Identifier: GPL-2.0
//@revisions: ok bad

//! A reference that lives for ever is mapped, though others may have a copy of it.
//!
//! C: Pointers can be copied, so two places may believe that they own the buffer.
//! Shows: As bytes that change while they are parsed.
//! Says: `&[u8; 64]` can't be mapped for DMA

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
type Bytes = &'static [u8; 64];

pub fn receive(dma: Mapper<'_>, buf: Bytes) {
    drop(Streaming::<_, FromDevice>::map(dma, buf)); //~[bad] E0277
}
