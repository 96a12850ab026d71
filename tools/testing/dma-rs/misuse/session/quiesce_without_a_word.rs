// SPDX-License-Identifier: GPL-2.0
//@revisions: ok bad

//! A driver says how its device is stopped, and nothing says why that stops it.
//!
//! C: The remove function does what its author thought of.
//! Shows: As corruption after unbind, kexec or reset.

use kernel::{
    device::{
        Bound,
        Device, //
    },
    dma::{
        Constraints,
        DmaMask,
        Quiesce, //
    },
    prelude::*, //
};

pub struct Stopper<'a>(pub &'a Device<Bound>);

#[cfg(bad)]
impl Quiesce for Stopper<'_> {
    //~[bad]^ E0200
    fn device(&self) -> &Device {
        self.0
    }

    fn limits(&self) -> Constraints {
        Constraints::new(DmaMask::new::<32>())
    }

    fn disarm(&mut self) -> Result {
        Ok(())
    }
}

#[cfg(ok)]
// SAFETY: By the numbers of the contract: 1. the device is always `self.0`; 2. to 9. it is shown
// nothing.
unsafe impl Quiesce for Stopper<'_> {
    fn device(&self) -> &Device {
        self.0
    }

    fn limits(&self) -> Constraints {
        Constraints::new(DmaMask::new::<32>())
    }

    fn disarm(&mut self) -> Result {
        Ok(())
    }
}
