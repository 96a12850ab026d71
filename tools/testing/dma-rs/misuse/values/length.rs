// SPDX-License-Identifier: GPL-2.0
//@revisions: ok bad

//! The device says how much it has written, and is believed.
//!
//! C: `skb_put(skb, desc->length)` compiles.
//! Shows: With a broken or hostile device, as a panic or a leak of kernel memory.

use kernel::{
    dma::Untrusted,
    prelude::*, //
};

pub fn payload(bytes: &[u8], len: Untrusted<usize>) -> Result<&[u8]> {
    #[cfg(ok)]
    let len = len.at_most(bytes.len())?;

    bytes.get(..len).ok_or(EIO) //~[bad] E0277
}
