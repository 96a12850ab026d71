// SPDX-License-Identifier: GPL-2.0
//@revisions: ok bad

//! How many bytes the device reports to have moved is believed.
//!
//! C: The length register is a number.
//! Shows: With a broken or hostile device: bytes beyond the buffer are parsed.

use kernel::{
    dma::transfer::Progress,
    prelude::*, //
};

pub fn moved(progress: Progress) -> Result<usize> {
    match progress {
        Progress::Busy => Ok(0),
        #[cfg(ok)]
        Progress::Done(moved) => moved.at_most(4096),
        #[cfg(bad)]
        Progress::Done(moved) => Ok(moved), //~[bad] E0308
    }
}
