// SPDX-License-Identifier: GPL-2.0
//@revisions: ok bad

//! A slot is freed while somebody waits for its transfer.
//!
//! C: `kfree()` in the remove function, and the work item still runs.
//! Shows: As a use after free, at unbind; KASAN, if it happens in a test.

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
    mut slot: TransferSlot<'a, E, KVec<u8>>,
    buf: Streaming<'a, KVec<u8>, FromDevice>,
) -> Result {
    let transfer = slot.start(buf, 0..64, ())?;
    #[cfg(bad)]
    drop(slot); //~[bad] E0505

    drop(transfer.wait_polling(Delta::from_micros(10), Delta::from_millis(1))?);
    Ok(())
}
