// SPDX-License-Identifier: GPL-2.0
//@revisions: ok bad
//@compile-flags: --emit=obj
//@error-in-other-file: a range is empty

//! A range of registers that aim DMA is empty, since its ends are mixed up.
//!
//! C: There are no such ranges.
//! Shows: In a review.
//! Says: a range is empty

use core::ops::Range;
use kernel::{
    dma::{
        DmaRegisters,
        PlainRegisters,
        RegisterRanges, //
    },
    io::{
        Mmio,
        Region, //
    }, //
};

pub struct Reader;

// SAFETY: The device reads from the address at 0x10 when the length at 0x14 is written.
unsafe impl RegisterRanges for Reader {
    #[cfg(ok)]
    const RANGES: &'static [Range<usize>] = &[0x10..0x18];
    #[cfg(bad)]
    const RANGES: &'static [Range<usize>] = &[0x18..0x10];
}

type Divided<'a> = (DmaRegisters<'a, Reader, 32>, PlainRegisters<'a, Reader, 32>);

/// # Safety
///
/// `io` must be the registers of a reader, and be used through the results only.
#[inline(never)]
pub unsafe fn divide(io: Mmio<'_, Region<32>>) -> Divided<'_> {
    // SAFETY: By the safety requirements.
    unsafe { DmaRegisters::new(io) }
}
