// SPDX-License-Identifier: GPL-2.0
//@revisions: ok bad

//! The index for the doorbell is made up.
//!
//! C: It is a number; its wrap-around is the driver's.
//! Shows: After as many frames as the ring has descriptors.

use kernel::{
    dma::{
        ring::{
            Producer,
            RingRegisters, //
        },
        ToDevice, //
    },
    prelude::*, //
};

pub fn ring<'a, Q: RingRegisters<Direction = ToDevice>>(
    tx: &mut Producer<'a, Q, KVec<u8>>,
) -> Result {
    #[cfg(bad)]
    let tail = kernel::dma::ring::Tail { 0: 7 }; //~[bad] E0451
    tx.kick()
}
