// SPDX-License-Identifier: GPL-2.0
//@revisions: ok bad

//! The driver ignores whether the device was started.
//!
//! C: `pci_set_master()` returns nothing.
//! Shows: As a device that does nothing, after a reset or at a suspend.

#![deny(unused_must_use)]

use kernel::{
    dma::Session,
    prelude::*, //
};

pub fn begin<R: Send>(session: &Session<'_, R>) -> Result {
    #[cfg(ok)]
    session.start()?;
    #[cfg(bad)]
    session.start(); //~[bad] unused_must_use
    Ok(())
}
