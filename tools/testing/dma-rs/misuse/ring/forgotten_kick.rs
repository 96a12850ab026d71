// SPDX-License-Identifier: GPL-2.0
//@revisions: ok bad

//! The driver ignores whether the device could be told.
//!
//! C: `writel()` returns nothing, whether the device is there or not.
//! Shows: As frames that are never sent, after a reset.

#![deny(unused_must_use)]

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
    #[cfg(ok)]
    tx.kick()?;
    #[cfg(bad)]
    tx.kick(); //~[bad] unused_must_use
    Ok(())
}
