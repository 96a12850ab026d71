// SPDX-License-Identifier: GPL-2.0
//@revisions: ok bad

//! The driver uses a buffer that a ring has.
//!
//! C: The pointer is still there.
//! Shows: As a frame that changes while it is sent; with bounce buffers, without cache
//!   coherence.

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

pub fn send<'a, Q>(tx: &mut Producer<'a, Q, KVec<u8>>, buf: KVec<u8>) -> Result<usize>
where
    Q: RingRegisters<Direction = ToDevice>,
    Q::Descriptor: Descriptor<Options = ()>,
{
    #[cfg(ok)]
    let len = buf.len();
    tx.post(buf, ())?;
    #[cfg(bad)]
    let len = buf.len(); //~[bad] E0382

    tx.kick()?;
    Ok(len)
}
