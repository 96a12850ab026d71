// SPDX-License-Identifier: GPL-2.0
//@revisions: ok bad

//! A length inside of a message leads past the message's end.
//!
//! C: `p += p->len` compiles.
//! Shows: With a broken or hostile device; KASAN, if the test has such a message.

use kernel::{
    dma::Reader,
    prelude::*, //
};

pub fn payload(message: &[u8]) -> Result<&[u8]> {
    let mut reader = Reader::new(message);
    let len = reader.u16_be()?;

    #[cfg(ok)]
    let payload = reader.take(len)?;
    #[cfg(bad)]
    let payload = &reader.rest()[..len]; //~[bad] E0277

    Ok(payload)
}
