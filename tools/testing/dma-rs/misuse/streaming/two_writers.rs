// SPDX-License-Identifier: GPL-2.0
//@revisions: ok bad

//! Two parts of a driver write to one buffer at a time.
//!
//! C: Pointers can be shared.
//! Shows: As a torn message, under load.

use kernel::{
    dma::{
        StreamingBox,
        ToDevice, //
    },
    prelude::*, //
};

pub fn fill(buf: &mut StreamingBox<'_, KVec<u8>, ToDevice>) {
    #[cfg(ok)]
    let (head, body) = buf.bytes_mut().split_at_mut(16);
    #[cfg(bad)]
    let head = buf.bytes_mut();
    #[cfg(bad)]
    let body = buf.bytes_mut(); //~[bad] E0499

    head.fill(1);
    body.fill(2);
}
