// SPDX-License-Identifier: GPL-2.0
//@revisions: ok bad

//! The CPU writes to a buffer that is mapped for the device to write.
//!
//! C: It compiles. The dirty cache line reaches memory after the device's bytes.
//! Shows: Without cache coherence, now and then.

use kernel::{
    dma::{
        self,
        StreamingBox, //
    },
    prelude::*, //
};

#[cfg(ok)]
type Way = dma::ToDevice;
#[cfg(bad)]
type Way = dma::FromDevice;

pub fn clear(buf: &mut StreamingBox<'_, KVec<u8>, Way>) {
    buf.bytes_mut().fill(0); //~[bad] E0599
}
