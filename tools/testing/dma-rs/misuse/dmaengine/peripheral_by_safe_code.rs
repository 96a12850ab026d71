// SPDX-License-Identifier: GPL-2.0
//@revisions: ok bad

//! The driver tells an engine to write to an address, and nobody vouches for it.
//!
//! C: An address is a number.
//! Shows: As memory or registers that change, if the number is wrong.

use kernel::{
    dma::dmaengine::{
        Peripheral,
        Width, //
    },
    io::PhysAddr, //
};

/// # Safety
///
/// There must be a FIFO of bytes.
pub unsafe fn fifo(address: PhysAddr) -> Peripheral {
    #[cfg(ok)]
    // SAFETY: By the safety requirement.
    let fifo = unsafe { Peripheral::new(address, Width::Bytes1) };
    #[cfg(bad)]
    let fifo = (|| Peripheral::new(address, Width::Bytes1))(); //~[bad] E0133

    fifo
}
