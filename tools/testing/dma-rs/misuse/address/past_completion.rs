// SPDX-License-Identifier: GPL-2.0
//@revisions: ok bad

//! An address is kept past the completion, when the CPU owns the buffer.
//!
//! C: The `dma_addr_t` in the ring isn't cleared, and is posted again.
//! Shows: As a frame that the device overwrites while it is parsed.

use kernel::{
    dma::{
        DmaAddr,
        FromDevice,
        Streaming,
        StreamingBox, //
    },
    prelude::*, //
};

type Posted<'a> = Streaming<'a, KVec<u8>, FromDevice>;

pub fn cancel<'a>(
    buf: Posted<'a>,
    mut show: impl FnMut(DmaAddr<'_>),
) -> Result<StreamingBox<'a, KVec<u8>, FromDevice>, Posted<'a>> {
    let address = buf.address();
    #[cfg(ok)]
    show(address);
    let buf = buf.take_back(); //~[bad] E0505
    #[cfg(bad)]
    show(address);

    buf
}
