// SPDX-License-Identifier: GPL-2.0
//@revisions: ok bad

//! A transfer is started, and nobody waits for it.
//!
//! C: It compiles; the buffer is freed at the end of the function, or leaks.
//! Shows: As corruption, or as a leak.
//! Says: the transfer goes on without it

#![deny(unused_must_use)]

use kernel::{
    dma::{
        transfer::{
            Engine,
            TransferSlot, //
        },
        FromDevice,
        Streaming, //
    },
    prelude::*,
    time::Delta, //
};

pub fn receive<'a, E: Engine<Target = ()>>(
    slot: &mut TransferSlot<'a, E, KVec<u8>>,
    buf: Streaming<'a, KVec<u8>, FromDevice>,
) -> Result {
    #[cfg(bad)]
    slot.start(buf, 0..64, ())?; //~[bad] unused_must_use
    #[cfg(ok)]
    drop(slot.start(buf, 0..64, ())?);

    slot.settle(Delta::from_micros(10), Delta::from_millis(1))
}
