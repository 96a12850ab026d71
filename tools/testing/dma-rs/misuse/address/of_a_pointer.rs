// SPDX-License-Identifier: GPL-2.0
//@revisions: ok bad

//! The device gets the CPU's address of a buffer.
//!
//! C: A cast makes a `dma_addr_t` of a pointer.
//! Shows: On all machines but those where both are the same by chance.

use kernel::{
    dma::{
        DmaAddr,
        Streaming,
        ToDevice, //
    },
    prelude::*, //
};

pub fn show(buf: &Streaming<'_, KVec<u8>, ToDevice>, show: impl FnOnce(DmaAddr<'_>)) {
    let _ = buf;
    #[cfg(ok)]
    show(buf.address());
    #[cfg(bad)]
    show(core::ptr::from_ref(buf)); //~[bad] E0308
}
