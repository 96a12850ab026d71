// SPDX-License-Identifier: GPL-2.0
//@revisions: ok bad

//! A value is checked, and the driver ignores the result.
//!
//! C: A helper returns an error that nobody reads.
//! Shows: With a broken or hostile device.

#![deny(unused_must_use)]

use kernel::{
    dma::Untrusted,
    prelude::*, //
};

pub fn check(len: Untrusted<usize>) -> Result {
    #[cfg(ok)]
    len.at_most(1514)?;
    #[cfg(bad)]
    len.at_most(1514); //~[bad] unused_must_use
    Ok(())
}
