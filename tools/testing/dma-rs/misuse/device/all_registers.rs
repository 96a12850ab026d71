// SPDX-License-Identifier: GPL-2.0
//@revisions: ok bad

//! Safe code gets at all registers of a device, those that aim DMA too.
//!
//! C: `ioremap()` gives all of them to everybody.
//! Shows: In a review, if the reviewer looks at each line.

use kernel::{
    dma::{
        DmaRegisters,
        RegisterRanges, //
    },
    io::Io, //
};

/// # Safety
///
/// Register 0 must not aim DMA.
pub unsafe fn id<W: RegisterRanges>(regs: &DmaRegisters<'_, W, 0x20>) -> u32 {
    #[cfg(ok)]
    // SAFETY: By the safety requirements.
    let io = unsafe { regs.io() };
    #[cfg(bad)]
    let io = safe(regs);

    io.read32(0)
}

#[cfg(bad)]
fn safe<'a, W: RegisterRanges>(
    regs: &DmaRegisters<'a, W, 0x20>,
) -> kernel::io::Mmio<'a, kernel::io::Region<0x20>> {
    regs.io() //~[bad] E0133
}
