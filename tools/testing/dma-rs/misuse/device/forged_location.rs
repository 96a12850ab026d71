// SPDX-License-Identifier: GPL-2.0
//@revisions: ok bad

//! A register that was declared harmless is accessed at another offset than declared.
//!
//! C: Any offset may be added to the base.
//! Shows: Behind an IOMMU as a fault; elsewhere as corruption.

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

#[cfg(bad)]
impl kernel::io::IoLoc<kernel::io::Region<0x20>, ID> for ID {
    //~[bad]^ E0119
    type IoType = u32;

    fn offset(self) -> usize {
        0x10
    }
}

pub fn id(regs: PlainRegisters<'_, Reader, 0x20>) -> u32 {
    regs.read(ID).value().into()
}
