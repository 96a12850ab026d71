// SPDX-License-Identifier: GPL-2.0
//@revisions: ok bad

//! A register is named by a bare offset, which may be that of one that aims DMA.
//!
//! C: `readl(base + 0x10)`.
//! Shows: Where the offset is wrong.
//! Says: is not a register that is known at compile time

use core::ops::Range;
use kernel::{
    dma::{
        PlainRegisters,
        RegisterRanges, //
    },
    register, //
};

register! {
    /// What the device is.
    pub ID(u32) @ 0x0 {
        31:0 value;
    }
}

pub struct Reader;

// SAFETY: The device reads from the address at 0x10 when the length at 0x14 is written.
unsafe impl RegisterRanges for Reader {
    const RANGES: &'static [Range<usize>] = &[0x10..0x18];
}

pub fn id(regs: PlainRegisters<'_, Reader, 0x20>) -> u32 {
    #[cfg(ok)]
    let id = regs.read(ID).value().into();
    #[cfg(bad)]
    let id = regs.read::<u32, usize>(0x0); //~[bad] E0277

    id
}
