// SPDX-License-Identifier: GPL-2.0
//@revisions: ok bad
//@compile-flags: --emit=obj
//@error-in-other-file: this register can make the device access memory

//! A register with a bus address in it is written by safe code.
//!
//! C: Each line of a driver may write each register.
//! Shows: Behind an IOMMU as a fault; elsewhere as corruption.
//! Says: this register can make the device access memory

use core::ops::Range;
use kernel::{
    dma::{
        PlainRegisters,
        RegisterRanges, //
    },
    prelude::*,
    register, //
};

register! {
    /// Which interrupts are on.
    pub MASK(u32) @ 0x4 {
        0:0 done;
    }

    /// Where the device reads.
    pub ADDRESS(u32) @ 0x10 {
        31:0 value;
    }
}

pub struct Reader;

// SAFETY: The device reads from the address at 0x10 when the length at 0x14 is written.
unsafe impl RegisterRanges for Reader {
    const RANGES: &'static [Range<usize>] = &[0x10..0x18];
}

pub fn set(regs: PlainRegisters<'_, Reader, 0x20>) -> Result {
    #[cfg(ok)]
    regs.update(MASK, |mask| mask.with_done(true));
    #[cfg(bad)]
    regs.update(ADDRESS, |address| address.with_value(0x1234_u32));
    Ok(())
}
