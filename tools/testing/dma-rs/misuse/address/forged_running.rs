// SPDX-License-Identifier: GPL-2.0
//@revisions: ok bad

//! The proof that a device runs is made up.
//!
//! C: There is none.
//! Shows: When a stop comes at that moment.

use kernel::{
    dma::{
        Mapper,
        Running, //
    },
    prelude::*, //
};

pub fn running(dma: Mapper<'_>) -> Result<Running<'_>> {
    #[cfg(ok)]
    let running = dma.running()?;
    #[cfg(bad)]
    let running = Running::enter(dma.record())?; //~[bad] E0624

    Ok(running)
}
