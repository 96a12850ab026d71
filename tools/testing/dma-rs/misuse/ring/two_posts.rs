// SPDX-License-Identifier: GPL-2.0
//@revisions: ok bad

//! A buffer is in two descriptors.
//!
//! C: Two descriptors may name one buffer.
//! Shows: As a double unmap and a double free, when both are reaped.

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

pub fn send<'a, Q>(tx: &mut Producer<'a, Q, KVec<u8>>, buf: KVec<u8>) -> Result
where
    Q: RingRegisters<Direction = ToDevice>,
    Q::Descriptor: Descriptor<Options = ()>,
{
    tx.post(buf, ())?;
    #[cfg(bad)]
    tx.post(buf, ())?; //~[bad] E0382
    tx.kick()
}
