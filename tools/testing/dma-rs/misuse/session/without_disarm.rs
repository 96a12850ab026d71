// SPDX-License-Identifier: GPL-2.0
//@revisions: ok bad

//! The device is let at memory while it may still hold addresses from before.
//!
//! C: `pci_set_master()` at the beginning of the probe, as most drivers have it.
//! Shows: After kexec, or when firmware has left the device at work.

use kernel::{
    dma::Session,
    prelude::*, //
};

/// It takes a proof that the driver's `disarm()` was called, which the session makes.
#[cfg(bad)]
pub fn open(disarmed: kernel::dma::session::Disarmed) -> Result {
    //~[bad]^ E0603
    drop(disarmed);
    Ok(())
}

pub fn begin<R: Send>(session: &Session<'_, R>) -> Result {
    session.start()
}
