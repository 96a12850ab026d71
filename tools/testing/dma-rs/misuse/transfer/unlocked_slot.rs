// SPDX-License-Identifier: GPL-2.0
//@revisions: ok bad

//! Two threads start transfers in one slot without a lock.
//!
//! C: The lock is a matter of comments.
//! Shows: As mixed registers, under load; KCSAN, if the registers are shadowed in memory.

use kernel::{
    dma::{
        transfer::{
            Engine,
            TransferSlot, //
        },
        FromDevice,
        Streaming, //
    },
    prelude::*, //
};

#[cfg(ok)]
type Shared<'a, E> = kernel::sync::Mutex<TransferSlot<'a, E, KVec<u8>>>;
#[cfg(bad)]
type Shared<'a, E> = TransferSlot<'a, E, KVec<u8>>;

pub fn receive<'a, E: Engine<Target = ()> + Unpin>(
    slot: &Shared<'a, E>,
    buf: Streaming<'a, KVec<u8>, FromDevice>,
) {
    #[cfg(ok)]
    let mut slot = slot.lock();
    drop(slot.start(buf, 0..64, ())); //~[bad] E0596
}
