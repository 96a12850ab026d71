// SPDX-License-Identifier: GPL-2.0
//@revisions: ok bad

//! The driver calculates with a number of the device, which overflows.
//!
//! C: `len - sizeof(header)` compiles.
//! Shows: With a broken or hostile device: a length of nearly 4 GiB.

use kernel::{
    dma::Untrusted,
    prelude::*, //
};

pub fn body(len: Untrusted<u32>) -> Result<u32> {
    #[cfg(ok)]
    let body = len.validate(|len| len.checked_sub(14).ok_or(EIO))?;
    #[cfg(bad)]
    let body = len - 14; //~[bad] E0369

    Ok(body)
}
