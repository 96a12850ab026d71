// SPDX-License-Identifier: GPL-2.0
//@revisions: ok bad

//! A transfer is to move a buffer both ways.
//!
//! C: `DMA_BIDIRECTIONAL` everywhere, to be on the safe side.
//! Shows: As twice the syncs and copies, on each transfer.
//! Says: no data is moved in the direction `kernel::dma::Bidirectional`

use kernel::{
    dma::{
        self,
        transfer::{
            Engine,
            TransferSlot, //
        },
        Streaming, //
    },
    prelude::*, //
};

#[cfg(ok)]
type Way = dma::ToDevice;
#[cfg(bad)]
type Way = dma::Bidirectional;

pub fn send<'a, E: Engine<Target = ()>>(
    slot: &mut TransferSlot<'a, E, KVec<u8>>,
    buf: Streaming<'a, KVec<u8>, Way>,
) {
    drop(slot.start(buf, 0..64, ())); //~[bad] E0277
}
