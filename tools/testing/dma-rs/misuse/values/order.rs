// SPDX-License-Identifier: GPL-2.0
//@revisions: ok bad

//! A number of the device is compared once, and used later.
//!
//! C: `if (desc->len < max) memcpy(to, from, desc->len)` reads it twice.
//! Shows: With a hostile device that changes it in between.

use kernel::{
    dma::Untrusted,
    prelude::*, //
};

pub fn checked(len: Untrusted<u32>) -> Result<u32> {
    #[cfg(ok)]
    let len = len.at_most(1514)?;
    #[cfg(bad)]
    let len = if len < 1514 { 0 } else { 1514 }; //~[bad] E0369

    Ok(len)
}
