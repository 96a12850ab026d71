// SPDX-License-Identifier: GPL-2.0
//@revisions: ok bad

//! Nothing says how the device is made to let go of its addresses.
//!
//! C: The remove function frees memory, and the registers keep the addresses.
//! Shows: When the device is started again, by the next driver or kernel.

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

// SAFETY: By the numbers of the contract: 1. the device is always `self.0`; 2. to 9. it is shown
// nothing.
unsafe impl Quiesce for Stopper<'_> {
    //~[bad]^ E0046
    fn device(&self) -> &Device {
        self.0
    }

    fn limits(&self) -> Constraints {
        Constraints::new(DmaMask::new::<32>())
    }

    #[cfg(ok)]
    fn disarm(&mut self) -> Result {
        Ok(())
    }
}
