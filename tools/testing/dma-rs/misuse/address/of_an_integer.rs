// SPDX-License-Identifier: GPL-2.0
//@revisions: ok bad

//! A bus address is made from a number.
//!
//! C: It is a number.
//! Shows: Where the number is wrong, for instance physical, not a bus address.

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
    // SAFETY: Isn't met: nobody knows what is there.
    show(unsafe { DmaAddr::new(0x1000, 64) }); //~[bad] E0624
}
