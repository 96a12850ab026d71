// SPDX-License-Identifier: GPL-2.0
//@revisions: ok bad

//! A number of the device becomes an index by a cast.
//!
//! C: `(size_t)desc->index` compiles.
//! Shows: With a broken or hostile device.

use kernel::{
    dma::Untrusted,
    prelude::*, //
};

pub fn index(index: Untrusted<u16>, len: usize) -> Result<usize> {
    #[cfg(ok)]
    let index = index.validate(|index| {
        if usize::from(index) < len {
            Ok(index.into())
        } else {
            Err(EIO)
        }
    })?;
    #[cfg(bad)]
    let index = index as usize % len; //~[bad] E0605

    Ok(index)
}
