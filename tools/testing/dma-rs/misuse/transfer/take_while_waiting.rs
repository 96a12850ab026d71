// SPDX-License-Identifier: GPL-2.0
//@revisions: ok bad

//! A buffer is taken out of its slot while somebody waits for it.
//!
//! C: The time-out handler and the interrupt handler both unmap.
//! Shows: As a double free, when both come at a time.

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
    let transfer = slot.start(buf, 0..64, ())?;
    #[cfg(bad)]
    let taken = slot.take::<FromDevice>()?; //~[bad] E0499

    drop(transfer.wait_polling(Delta::from_micros(10), Delta::from_millis(1)));
    #[cfg(ok)]
    let taken = slot.take::<FromDevice>()?;
    drop(taken);
    Ok(())
}
