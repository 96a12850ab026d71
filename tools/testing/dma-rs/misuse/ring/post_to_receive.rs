// SPDX-License-Identifier: GPL-2.0
//@revisions: ok bad

//! A frame is posted to a ring that receives: the device writes to it.
//!
//! C: Both rings have the same type.
//! Shows: As a frame that comes back with other bytes.

use kernel::{
    dma::{
        self,
        ring::{
            Descriptor,
            Producer,
            RingRegisters, //
        },
    },
    prelude::*, //
};

#[cfg(ok)]
type Way = dma::ToDevice;
#[cfg(bad)]
type Way = dma::FromDevice;

pub fn send<'a, Q>(tx: &mut Producer<'a, Q, KVec<u8>>, buf: KVec<u8>) -> Result
where
    Q: RingRegisters<Direction = Way>,
    Q::Descriptor: Descriptor<Options = ()>,
{
    drop(tx.post(buf, ())); //~[bad] E0599
    tx.kick()
}
