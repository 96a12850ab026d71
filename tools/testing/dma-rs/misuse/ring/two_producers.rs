// SPDX-License-Identifier: GPL-2.0
//@revisions: ok bad

//! Two threads post to one ring without a lock.
//!
//! C: The lock is a matter of comments.
//! Shows: As lost frames, under load; KCSAN, if both come at a time in a test.

use kernel::{
    dma::{
        ring::{
            Descriptor,
            Producer,
            RingRegisters, //
        },
        ToDevice, //
    },
    prelude::*, //
};

#[cfg(ok)]
type Shared<'s, T> = &'s mut T;
#[cfg(bad)]
type Shared<'s, T> = &'s T;

pub fn send<'a, Q>(tx: Shared<'_, Producer<'a, Q, KVec<u8>>>, buf: KVec<u8>)
where
    Q: RingRegisters<Direction = ToDevice>,
    Q::Descriptor: Descriptor<Options = ()>,
{
    drop(tx.post(buf, ())); //~[bad] E0596
}
