// SPDX-License-Identifier: GPL-2.0
//@revisions: ok bad

//! The driver uses a buffer that a transfer has.
//!
//! C: The pointer is still there.
//! Shows: With bounce buffers, or without cache coherence; otherwise as torn data.

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

pub fn send<'a, E: Engine<Target = ()>>(
    slot: &mut TransferSlot<'a, E, KVec<u8>>,
    buf: Streaming<'a, KVec<u8>, ToDevice>,
) -> Result<usize> {
    #[cfg(ok)]
    let len = buf.len();
    let transfer = slot.start(buf, 0..64, ())?;
    #[cfg(bad)]
    let len = buf.len(); //~[bad] E0382

    drop(transfer);
    Ok(len)
}
