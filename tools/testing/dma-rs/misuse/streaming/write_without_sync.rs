// SPDX-License-Identifier: GPL-2.0
//@revisions: ok bad

//! The CPU writes the next message into a buffer that the device owns.
//!
//! C: The missing `dma_sync_single_for_cpu()` and `..._for_device()` compile.
//! Shows: With bounce buffers, or without cache coherence: the device reads the old message.

use kernel::{
    dma::{
        Streaming,
        ToDevice, //
    },
    prelude::*, //
};

pub fn clear<'a>(
    buf: Streaming<'a, KVec<u8>, ToDevice>,
) -> Result<Streaming<'a, KVec<u8>, ToDevice>> {
    #[cfg(ok)]
    let mut buf = buf.take_back().map_err(|_in_flight| EBUSY)?;
    buf.bytes_mut().fill(0); //~[bad] E0599

    #[cfg(ok)]
    let buf = buf.submit();
    Ok(buf)
}
