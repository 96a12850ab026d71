// SPDX-License-Identifier: GPL-2.0
//@revisions: ok bad

//! The mask is changed while mappings live.
//!
//! C: `dma_set_mask()` compiles at any time.
//! Shows: As addresses that the device can't drive, or as bounces that come and go.

use kernel::{
    dma::{
        Device,
        DmaMask, //
    },
    pci,
    prelude::*, //
};

/// # Safety
///
/// As [`Device::dma_set_mask`] says.
pub unsafe fn wider(dev: &pci::Device<kernel::device::Core<'_>>) -> Result {
    // SAFETY: By the safety requirements.
    #[cfg(ok)]
    return unsafe { dev.dma_set_mask(DmaMask::new::<64>()) };
    #[cfg(bad)]
    return safe(dev);
}

#[cfg(bad)]
fn safe(dev: &pci::Device<kernel::device::Core<'_>>) -> Result {
    dev.dma_set_mask(DmaMask::new::<64>()) //~[bad] E0133
}
