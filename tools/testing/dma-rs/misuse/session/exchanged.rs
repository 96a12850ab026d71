// SPDX-License-Identifier: GPL-2.0
//@revisions: ok bad

//! What the device may access is exchanged while the device runs.
//!
//! C: `nic->ring = new` compiles at any time; the old one is freed.
//! Shows: As corruption, under load.

use kernel::{
    dma::{
        ring::{
            Ring,
            RingRegisters, //
        },
        Session,
        ToDevice, //
    },
    prelude::*,
    sync::Mutex, //
};

type Sender<'a, Q> = Ring<'a, Q, KVec<u8>>;

pub fn larger<'a, Q: RingRegisters<Direction = ToDevice> + Unpin>(
    session: &mut Session<'a, Mutex<Sender<'a, Q>>>,
    new: Mutex<Sender<'a, Q>>,
) -> Result {
    let _ = &new;
    // The device must have stopped, or the ring stays as it is.
    #[cfg(ok)]
    session.lock().resize(512, drop)?;
    #[cfg(bad)]
    drop(core::mem::replace(&mut **session, new)); //~[bad] E0596
    Ok(())
}
