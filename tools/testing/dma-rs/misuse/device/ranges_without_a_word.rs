// SPDX-License-Identifier: GPL-2.0
//@revisions: ok bad

//! A driver lists the registers that aim DMA, and nothing says why the list is complete.
//!
//! C: There is no such list.
//! Shows: In a review.

use core::ops::Range;
use kernel::dma::RegisterRanges;

pub struct Reader;

#[cfg(bad)]
impl RegisterRanges for Reader {
    //~[bad]^ E0200
    const RANGES: &'static [Range<usize>] = &[0x10..0x18];
}

// SAFETY: The device reads from the address at 0x10 when the length at 0x14 is written.
#[cfg(ok)]
unsafe impl RegisterRanges for Reader {
    const RANGES: &'static [Range<usize>] = &[0x10..0x18];
}
