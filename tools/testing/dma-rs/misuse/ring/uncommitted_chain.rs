// SPDX-License-Identifier: GPL-2.0
//@revisions: ok bad

//! The pieces of a frame are pushed, and the frame isn't posted.
//!
//! C: The last descriptor isn't marked, or the tail isn't moved.
//! Shows: As a queue that stalls.
//! Says: nothing is posted before `commit`

#![deny(unused_must_use)]

use kernel::{
    dma::{
        ring::{
            Chain,
            Descriptor,
            Producer,
            RingRegisters, //
        },
        ToDevice, //
    },
    prelude::*, //
};

fn fill<'p, 'a, Q>(
    mut chain: Chain<'p, 'a, Q, KVec<u8>>,
    buf: KVec<u8>,
) -> Result<Chain<'p, 'a, Q, KVec<u8>>>
where
    Q: RingRegisters<Direction = ToDevice>,
    Q::Descriptor: Descriptor<Options = ()>,
{
    chain.push(buf, ())?;
    Ok(chain)
}

pub fn send<'a, Q>(tx: &mut Producer<'a, Q, KVec<u8>>, buf: KVec<u8>) -> Result
where
    Q: RingRegisters<Direction = ToDevice>,
    Q::Descriptor: Descriptor<Options = ()>,
{
    #[cfg(ok)]
    fill(tx.new_chain(), buf)?.commit()?;
    #[cfg(bad)]
    fill(tx.new_chain(), buf)?; //~[bad] unused_must_use
    tx.kick()
}
