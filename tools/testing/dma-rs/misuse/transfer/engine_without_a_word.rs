// SPDX-License-Identifier: GPL-2.0
//@revisions: ok bad

//! A driver describes its hardware as an engine, and nothing says why it is one.
//!
//! C: When the device is done is written in the data sheet, and in the interrupt handler.
//! Shows: Where the handler is wrong.

use kernel::{
    device::{
        Bound,
        Device, //
    },
    dma::transfer::{
        Engine,
        Progress,
        Request, //
    },
    prelude::*, //
};

pub struct Copier<'a>(pub &'a Device<Bound>);

#[cfg(bad)]
impl Engine for Copier<'_> {
    //~[bad]^ E0200
    type Target = ();

    fn device(&self) -> &Device {
        self.0
    }

    fn start(&mut self, _request: Request<'_, ()>) -> Result {
        Err(EIO)
    }

    fn poll(&mut self) -> Result<Progress> {
        Err(EIO)
    }
}

#[cfg(ok)]
// SAFETY: By the numbers of the contract: 1. the device is always `self.0`; 2. to 8. nothing is
// ever started.
unsafe impl Engine for Copier<'_> {
    type Target = ();

    fn device(&self) -> &Device {
        self.0
    }

    fn start(&mut self, _request: Request<'_, ()>) -> Result {
        Err(EIO)
    }

    fn poll(&mut self) -> Result<Progress> {
        Err(EIO)
    }
}
