// SPDX-License-Identifier: GPL-2.0
//@revisions: ok bad

//! The CPU writes to a buffer that it has given to the device.
//!
//! C: `buf[0] = 1` after `dma_sync_single_for_device()` compiles.
//! Shows: With bounce buffers, or without cache coherence; dma-debug doesn't see it.

use kernel::{
    dma::{
        Streaming,
        StreamingBox,
        ToDevice, //
    },
    prelude::*, //
};

pub fn send<'a>(
    mut buf: StreamingBox<'a, KVec<u8>, ToDevice>,
) -> Streaming<'a, KVec<u8>, ToDevice> {
    #[cfg(ok)]
    buf.bytes_mut().fill(1);
    let sent = buf.submit();
    #[cfg(bad)]
    buf.bytes_mut().fill(1); //~[bad] E0382

    sent
}
