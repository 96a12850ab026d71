// SPDX-License-Identifier: GPL-2.0
//@revisions: ok bad

//! A buffer is given to the device, but no protocol gets it.
//!
//! C: `dma_sync_single_for_device()`, and the line that rings the doorbell was forgotten.
//! Shows: As a transfer that never begins.
//! Says: give it to a transfer or a queue

#![deny(unused_must_use)]

use kernel::{
    dma::{
        Streaming,
        StreamingBox,
        ToDevice, //
    },
    prelude::*, //
};

type Sent<'a> = Streaming<'a, KVec<u8>, ToDevice>;

pub fn send<'a>(buf: StreamingBox<'a, KVec<u8>, ToDevice>, to: impl FnOnce(Sent<'a>)) {
    let _ = &to;
    #[cfg(ok)]
    to(buf.submit());
    #[cfg(bad)]
    buf.submit(); //~[bad] unused_must_use
}
