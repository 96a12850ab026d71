// SPDX-License-Identifier: GPL-2.0
//@revisions: ok bad

//! An address is shown to a device that may be stopped at that moment.
//!
//! C: Nothing asks whether the device was started, or is being stopped.
//! Shows: When unbind, suspend or reset come between: the device goes on where it was stopped.

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
    let _ = running;
    #[cfg(ok)]
    // SAFETY: The caller promises all of it.
    let bits = unsafe { address.to_bits(running) };
    #[cfg(bad)]
    // SAFETY: As above, but for the guard.
    let bits = unsafe { address.to_bits() }; //~[bad] E0061

    Ok(bits.try_into()?)
}
