// SPDX-License-Identifier: GPL-2.0
//@revisions: ok bad

//! An address is written to the device outside of the driver's `unsafe` file.
//!
//! C: Each line of a driver may do that.
//! Shows: In a review, if the reviewer looks at each line.

use kernel::{
    dma::{
        DmaAddr,
        Running, //
    },
    prelude::*, //
};

/// # Safety
///
/// As [`DmaAddr::to_bits`] says.
pub unsafe fn show(address: DmaAddr<'_>, running: &Running<'_>) -> Result<u32> {
    #[cfg(ok)]
    // SAFETY: The caller promises all of it.
    let bits = unsafe { address.to_bits(running) };
    #[cfg(bad)]
    let bits = safe(address, running);

    Ok(bits.try_into()?)
}

#[cfg(bad)]
fn safe(address: DmaAddr<'_>, running: &Running<'_>) -> u64 {
    address.to_bits(running) //~[bad] E0133
}
