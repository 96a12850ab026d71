// SPDX-License-Identifier: GPL-2.0
//@revisions: ok bad

//! A frame is posted in the middle of another one.
//!
//! C: The index moves on, and the first frame has a hole.
//! Shows: As mixed frames, under load.

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

pub fn send<'a, Q>(tx: &mut Producer<'a, Q, KVec<u8>>, one: KVec<u8>, other: KVec<u8>) -> Result
where
    Q: RingRegisters<Direction = ToDevice>,
    Q::Descriptor: Descriptor<Options = ()>,
{
    let mut chain = tx.new_chain();

    chain.push(one, ())?;
    #[cfg(bad)]
    tx.post(other, ())?; //~[bad] E0499
    chain.commit()?;
    #[cfg(ok)]
    tx.post(other, ())?;
    tx.kick()
}
