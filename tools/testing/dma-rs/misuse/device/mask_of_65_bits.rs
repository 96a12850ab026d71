// SPDX-License-Identifier: GPL-2.0
//@revisions: ok bad

//! A mask has more bits than an address.
//!
//! C: `DMA_BIT_MASK(65)` is undefined, and a warning of some compilers.
//! Shows: As a mask of no bits.

use kernel::dma::{
    Constraints,
    DmaMask, //
};

#[cfg(ok)]
pub const CONSTRAINTS: Constraints = Constraints::new(DmaMask::new::<64>());
#[cfg(bad)]
pub const CONSTRAINTS: Constraints = Constraints::new(DmaMask::new::<65>()); //~[bad] E0080
