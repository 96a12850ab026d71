// SPDX-License-Identifier: GPL-2.0
//@revisions: ok bad

//! A session is made, and not kept.
//!
//! C: No such notion: the pieces are in the driver's structure, or forgotten.
//! Shows: As a device that can't be started.
//! Says: keep it in the driver's data

#![deny(unused_must_use)]

use kernel::{
    device::{
        Core,
        Device, //
    },
    dma::{
        Quiesce,
        Session, //
    },
    prelude::*, //
};

pub fn probe<'a>(dev: &Device<Core<'a>>, quiesce: impl Quiesce + 'a) -> Result {
    #[cfg(ok)]
    let session = Session::new(dev, quiesce, ())?;
    #[cfg(bad)]
    Session::new(dev, quiesce, ())?; //~[bad] unused_must_use
    #[cfg(ok)]
    session.start()?;
    Ok(())
}
