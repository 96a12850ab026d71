// SPDX-License-Identifier: GPL-2.0
//@revisions: ok bad

//! A ring is used through the session that owns it, from several threads at a time.
//!
//! C: The lock is a matter of comments.
//! Shows: As lost frames, under load.

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

#[cfg(ok)]
type Kept<T> = kernel::sync::Mutex<T>;
#[cfg(bad)]
type Kept<T> = T;

pub fn kick<'a, Q>(session: &Session<'a, Kept<Ring<'a, Q, KVec<u8>>>>) -> Result
where
    Q: RingRegisters<Direction = ToDevice> + Unpin,
{
    #[cfg(ok)]
    let mut ring = session.lock();
    #[cfg(bad)]
    let ring = session;

    ring.producer.kick() //~[bad] E0596
}
