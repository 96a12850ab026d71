// SPDX-License-Identifier: GPL-2.0
//@revisions: ok bad

//! The halves of two rings are started together.
//!
//! C: Each half is a pointer to a structure.
//! Shows: As frames that are reaped from the wrong ring.

use kernel::{
    dma::{
        ring::{
            Ring,
            RingRegisters, //
        },
        FromDevice,
        ToDevice, //
    },
    prelude::*, //
};

pub fn start<'a, Q, R>(tx: &mut Ring<'a, Q, KVec<u8>>, rx: &mut Ring<'a, R, KVec<u8>>) -> Result
where
    Q: RingRegisters<Direction = ToDevice>,
    R: RingRegisters<Direction = FromDevice>,
{
    let _ = &rx;
    #[cfg(ok)]
    tx.producer.start(&mut tx.consumer, drop)?;
    #[cfg(bad)]
    tx.producer.start(&mut rx.consumer, drop)?; //~[bad] E0308
    Ok(())
}
