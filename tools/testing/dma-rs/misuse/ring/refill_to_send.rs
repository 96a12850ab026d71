// SPDX-License-Identifier: GPL-2.0
//@revisions: ok bad

//! A ring that sends is filled with empty buffers.
//!
//! C: Both rings have the same type.
//! Shows: On the wire.

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
type Way = dma::FromDevice;
#[cfg(bad)]
type Way = dma::ToDevice;

pub fn fill<'a, Q>(rx: &mut Producer<'a, Q, KVec<u8>>) -> Result
where
    Q: RingRegisters<Direction = Way>,
    Q::Descriptor: Descriptor<Options = ()>,
{
    rx.refill((), || Ok(KVec::from_elem(0, 2048, GFP_KERNEL)?))?; //~[bad] E0599
    rx.kick()
}
