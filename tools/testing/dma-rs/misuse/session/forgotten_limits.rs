// SPDX-License-Identifier: GPL-2.0
//@revisions: ok bad

//! Nothing says what addresses the hardware can take, so a wider mask would be believed.
//!
//! C: The mask is what the driver's author has copied.
//! Shows: On machines with memory beyond what the device can address.

use kernel::{
    device::{
        Bound,
        Device, //
    },
    dma::Quiesce,
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

    #[cfg(ok)]
    fn limits(&self) -> kernel::dma::Constraints {
        kernel::dma::Constraints::new(kernel::dma::DmaMask::new::<32>())
    }

    fn disarm(&mut self) -> Result {
        Ok(())
    }
}
