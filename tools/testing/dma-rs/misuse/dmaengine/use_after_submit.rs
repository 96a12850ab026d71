// SPDX-License-Identifier: GPL-2.0
//@revisions: ok bad

//! The driver uses a buffer that a DMA engine has.
//!
//! C: The pointer is still there.
//! Shows: With bounce buffers, or without cache coherence; otherwise as torn data.

use kernel::{
    dma::{
        dmaengine::{
            Channel,
            Memcpy, //
        },
        FromDevice,
        Streaming,
        ToDevice, //
    },
    prelude::*,
    time::Delta, //
};

pub fn copy<'c>(
    channel: &'c Channel<'_>,
    from: Streaming<'c, KVec<u8>, ToDevice>,
    to: Streaming<'c, KVec<u8>, FromDevice>,
) -> Result<KVec<u8>> {
    let copy = channel.submit(Memcpy::new(from, to))?;
    #[cfg(bad)]
    let to = to.take_back().map_err(|_| EBUSY)?; //~[bad] E0382
    let (_from, _to) = copy.wait(Delta::from_millis(100))?;

    #[cfg(ok)]
    let to = _to;
    Ok(to.unmap())
}
