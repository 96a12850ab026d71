// SPDX-License-Identifier: GPL-2.0
//@revisions: ok bad

//! A driver has a direction of its own, for instance "none".
//!
//! C: `DMA_NONE` is a value of the enumeration, and a BUG in the DMA core.
//! Shows: At once, where it is tried.
//! Says: `None` is not a direction of DMA

use kernel::dma::Direction;

#[cfg(bad)]
pub struct None;

#[cfg(bad)]
impl Direction for None {
    //~[bad]^ E0277
    const DATA_DIRECTION: kernel::dma::DataDirection = kernel::dma::DataDirection::None;
    const DEVICE_WRITES: bool = false;
    const CPU_WRITES: bool = false;
}

pub fn both_write<D: Direction>() -> bool {
    D::DEVICE_WRITES && D::CPU_WRITES
}
