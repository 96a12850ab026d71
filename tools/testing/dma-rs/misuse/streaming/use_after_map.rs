// SPDX-License-Identifier: GPL-2.0
//@revisions: ok bad

//! The CPU writes to a buffer that it has mapped.
//!
//! C: The pointer is still there after `dma_map_single()`.
//! Shows: With bounce buffers, or without cache coherence; dma-debug doesn't see it.

use kernel::{
    dma::{
        Mapper,
        Streaming,
        ToDevice, //
    },
    prelude::*, //
};

pub fn send<'a>(dma: Mapper<'a>, mut buf: KVec<u8>) -> Result<Streaming<'a, KVec<u8>, ToDevice>> {
    #[cfg(ok)]
    buf.fill(1);
    let sent = Streaming::map(dma, buf)?;
    #[cfg(bad)]
    buf.fill(1); //~[bad] E0382

    Ok(sent)
}
