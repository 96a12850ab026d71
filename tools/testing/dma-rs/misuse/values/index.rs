// SPDX-License-Identifier: GPL-2.0
//@revisions: ok bad

//! The device says which entry of a table is meant, and is believed.
//!
//! C: `table[desc->queue]` compiles.
//! Shows: With a broken or hostile device; UBSAN sees it for some arrays.

use kernel::{
    dma::Untrusted,
    prelude::*, //
};

pub fn name(queue: Untrusted<usize>, names: &[&'static str]) -> Result<&'static str> {
    #[cfg(ok)]
    let name = *queue.index_into(names)?;
    #[cfg(bad)]
    let name = names[queue]; //~[bad] E0277

    Ok(name)
}
