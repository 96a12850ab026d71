// SPDX-License-Identifier: GPL-2.0
//@revisions: ok bad

//! What the device may access is taken out of its session, and freed.
//!
//! C: `kfree(nic->ring)` compiles at any time.
//! Shows: As corruption, while the device runs.

use kernel::{
    dma::{
        ring::{
            Ring,
            RingRegisters, //
        },
        Session,
        ToDevice, //
    },
    prelude::*, //
};

pub fn end<'a, Q: RingRegisters<Direction = ToDevice>>(
    session: Session<'a, Ring<'a, Q, KVec<u8>>>,
) {
    // The bus stops the device, and then frees the ring.
    #[cfg(ok)]
    drop(session);
    #[cfg(bad)]
    drop(session.producer); //~[bad] E0507
}
