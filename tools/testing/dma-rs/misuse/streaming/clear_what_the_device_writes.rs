// SPDX-License-Identifier: GPL-2.0
//@revisions: ok bad

//! A helper that writes to buffers is called for one that the device writes.
//!
//! C: `memset()` takes any pointer.
//! Shows: Without cache coherence, now and then.
//! Says: the CPU can't write to a buffer that is mapped as `kernel::dma::FromDevice`

use kernel::{
    dma::{
        self,
        CpuWrites,
        StreamingBox, //
    },
    prelude::*, //
};

#[cfg(ok)]
type Way = dma::Bidirectional;
#[cfg(bad)]
type Way = dma::FromDevice;

fn clear<D: CpuWrites>(buf: &mut StreamingBox<'_, KVec<u8>, D>) {
    buf.bytes_mut().fill(0);
}

pub fn reset(buf: &mut StreamingBox<'_, KVec<u8>, Way>) {
    clear(buf); //~[bad] E0277
}
