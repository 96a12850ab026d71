// SPDX-License-Identifier: GPL-2.0
//@revisions: ok bad

//! The registers of a device are divided a second time, with other ranges.
//!
//! C: Two drivers, or two files, map them twice.
//! Shows: In a review.

use kernel::{
    device::Core,
    dma::{
        DmaRegisters,
        RegisterRanges, //
    },
    pci,
    prelude::*, //
};

/// # Safety
///
/// `W` must be about these registers.
pub unsafe fn probe<'a, W: RegisterRanges>(
    pdev: &pci::Device<Core<'a>>,
    bar: pci::Bar<'a, 0x20>,
) -> Result<DmaRegisters<'a, W, 0x20>> {
    // SAFETY: By the safety requirements.
    let (all, _) = unsafe { DmaRegisters::<'_, W, _>::divide(pdev, bar) }?;
    #[cfg(bad)]
    // SAFETY: As above.
    let (all, _) = unsafe { DmaRegisters::<'_, W, _>::divide(pdev, bar) }?; //~[bad] E0382

    Ok(all)
}
