// SPDX-License-Identifier: GPL-2.0
//@revisions: ok bad

//! Received frames are taken back as if they had been sent, without a sync.
//!
//! C: Both kinds of descriptors are cleaned in one function.
//! Shows: With bounce buffers, or without cache coherence.

use kernel::{
    dma::{
        self,
        ring::{
            Consumer,
            RingRegisters, //
        },
    },
    prelude::*, //
};

#[cfg(ok)]
type Way = dma::ToDevice;
#[cfg(bad)]
type Way = dma::FromDevice;

pub fn clean<'a, Q: RingRegisters<Direction = Way>>(ring: &mut Consumer<'a, Q, KVec<u8>>) {
    drop(ring.reap()); //~[bad] E0599
}
