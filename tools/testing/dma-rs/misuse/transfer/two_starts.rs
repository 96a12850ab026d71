// SPDX-License-Identifier: GPL-2.0
//@revisions: ok bad

//! A second transfer is started while somebody waits for the first.
//!
//! C: The registers are written again; the first buffer is forgotten.
//! Shows: As data in the wrong place.

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

type Sent<'a> = Streaming<'a, KVec<u8>, ToDevice>;

pub fn send<'a, E: Engine<Target = ()>>(
    slot: &mut TransferSlot<'a, E, KVec<u8>>,
    one: Sent<'a>,
    other: Sent<'a>,
) -> Result {
    let first = slot.start(one, 0..64, ())?;
    #[cfg(ok)]
    drop(first);
    let second = slot.start(other, 0..64, ())?; //~[bad] E0499

    #[cfg(bad)]
    drop(first);
    drop(second);
    Ok(())
}
