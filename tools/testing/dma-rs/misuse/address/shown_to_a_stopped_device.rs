// SPDX-License-Identifier: GPL-2.0
//@revisions: ok bad

//! An address is shown though the device was found to be stopped.
//!
//! C: A flag that is checked, and may change after the check.
//! Shows: When a stop comes at that moment.

use kernel::{
    dma::{
        DmaAddr,
        Mapper, //
    },
    prelude::*, //
};

/// # Safety
///
/// As [`DmaAddr::to_bits`] says, for the device of `dma`.
pub unsafe fn show(dma: Mapper<'_>, address: DmaAddr<'_>) -> Result<u32> {
    #[cfg(ok)]
    let running = dma.running()?;
    #[cfg(bad)]
    let running = dma.running();

    // SAFETY: The caller promises all of it.
    Ok(unsafe { address.to_bits(&running) }.try_into()?) //~[bad] E0308
}
