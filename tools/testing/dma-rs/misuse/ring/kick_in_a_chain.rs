// SPDX-License-Identifier: GPL-2.0
//@revisions: ok bad

//! The device is told of a frame that isn't complete.
//!
//! C: The doorbell is rung from another function.
//! Shows: As half a frame on the wire.

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
    let mut chain = tx.new_chain();

    chain.push(buf, ())?;
    #[cfg(bad)]
    tx.kick()?; //~[bad] E0499
    chain.commit()?;
    tx.kick()
}
