// SPDX-License-Identifier: GPL-2.0
//@revisions: ok bad

//! A piece is added to a frame that was posted.
//!
//! C: The descriptor after the last one is written, without a flag.
//! Shows: As a piece that the device takes for a frame of its own.

use kernel::{
    dma::{
        ring::{
            Chain,
            Descriptor,
            RingRegisters, //
        },
        ToDevice, //
    },
    prelude::*, //
};

pub fn send<'a, Q>(mut chain: Chain<'_, 'a, Q, KVec<u8>>, buf: KVec<u8>) -> Result
where
    Q: RingRegisters<Direction = ToDevice>,
    Q::Descriptor: Descriptor<Options = ()>,
{
    #[cfg(ok)]
    chain.push(buf, ())?;
    chain.commit()?;
    #[cfg(bad)]
    chain.push(buf, ())?; //~[bad] E0382
    Ok(())
}
