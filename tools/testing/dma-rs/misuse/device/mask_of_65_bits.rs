// SPDX-License-Identifier: GPL-2.0
//@revisions: ok bad
//@compile-flags: --emit=obj

//! A mask has more bits than an address.
//!
//! C: `DMA_BIT_MASK(65)` is undefined, and a warning of some compilers.
//! Shows: As a mask of no bits.

use kernel::dma::{
    Constraints,
    DmaMask, //
};

pub fn constraints() -> Constraints {
    #[cfg(ok)]
    let mask = DmaMask::new::<64>();
    #[cfg(bad)]
    let mask = DmaMask::new::<65>(); //~[bad] E0080

    Constraints::new(mask)
}
