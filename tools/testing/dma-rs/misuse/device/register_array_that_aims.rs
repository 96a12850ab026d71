// SPDX-License-Identifier: GPL-2.0
//@revisions: ok bad
//@compile-flags: --emit=obj

//! An array of registers reaches into those that aim DMA.
//!
//! C: An index that is too large writes the next register.
//! Shows: Behind an IOMMU as a fault; elsewhere as corruption.
//! Says: this register can make the device access memory

use core::ops::Range;
use kernel::{
    dma::{
        PlainRegisters,
        RegisterRanges, //
    },
    io::register::Array,
    register, //
};

#[cfg(ok)]
const COUNT: usize = 4;
#[cfg(bad)]
const COUNT: usize = 5;

register! {
    /// Scratch registers.
    pub SCRATCH(u32)[COUNT] @ 0x0 {
        31:0 value;
    }
}

pub struct Reader;

// SAFETY: The device reads from the address at 0x10 when the length at 0x14 is written.
unsafe impl RegisterRanges for Reader {
    const RANGES: &'static [Range<usize>] = &[0x10..0x18];
}

pub fn first(regs: PlainRegisters<'_, Reader, 0x20>) -> u32 {
    regs.read(SCRATCH::at(0)).value().into() //~[bad] E0080
}
