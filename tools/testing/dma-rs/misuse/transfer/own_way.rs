// SPDX-License-Identifier: GPL-2.0
//@revisions: ok bad

//! A driver declares that transfers move data in a direction of its own.
//!
//! C: The direction is a value of the enumeration, for any call.
//! Shows: Where the protocol never had that case.
//! Says: no data is moved in the direction

use kernel::dma::OneWay;

#[cfg(bad)]
pub struct Ways;

#[cfg(bad)]
impl OneWay for Ways {} //~[bad] E0277

pub fn device_writes<D: OneWay>() -> bool {
    D::DEVICE_WRITES
}
