// SPDX-License-Identifier: GPL-2.0
//@revisions: ok bad

//! The driver tells the engine itself to access memory, past the slot.
//!
//! C: The function that writes the registers is called from where it is handy.
//! Shows: As two transfers at a time.

use kernel::{
    dma::{
        transfer::{
            Engine,
            TransferSlot, //
        },
        Streaming,
        ToDevice, //
    },
    prelude::*, //
};

type Slot<'a, E> = TransferSlot<'a, E, KVec<u8>>;

pub fn start<'a, E: Engine<Target = ()>>(
    slot: &mut Slot<'a, E>,
    buf: Streaming<'a, KVec<u8>, ToDevice>,
) -> Result {
    #[cfg(ok)]
    drop(slot.start(buf, 0..64, ())?);
    Ok(())
}

#[cfg(bad)]
pub fn start_past_it<E: Engine<Target = ()>>(
    engine: &mut E,
    memory: kernel::dma::DmaAddr<'_>,
    running: &kernel::dma::Running<'_>,
) -> Result {
    use kernel::dma::transfer::Request;

    let direction = kernel::dma::DataDirection::ToDevice;
    #[rustfmt::skip]
    let request = Request { memory, direction, target: (), running }; //~[bad] E0639

    engine.start(request)
}
