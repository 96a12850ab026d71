// SPDX-License-Identifier: GPL-2.0
//@revisions: ok bad

//! A descriptor is made for memory that isn't in the ring.
//!
//! C: `desc->addr = anything` compiles.
//! Shows: Behind an IOMMU as a fault; elsewhere as corruption.

#[cfg(bad)]
use kernel::dma::ring::DescriptorInfo;
use kernel::{
    dma::{
        ring::{
            Descriptor,
            Ring,
            RingRegisters, //
        },
        ToDevice, //
    },
    prelude::*, //
};

pub fn post<'a, Q>(tx: &mut Ring<'a, Q, KVec<u8>>, buf: KVec<u8>) -> Result
where
    Q: RingRegisters<Direction = ToDevice>,
    Q::Descriptor: Descriptor<Options = ()>,
{
    #[cfg(ok)]
    tx.producer.post(buf, ())?;
    #[cfg(bad)]
    #[rustfmt::skip]
    let info = DescriptorInfo { memory: None, options: (), first: true, last: true }; //~[bad] E0639
    #[cfg(bad)]
    drop(Q::Descriptor::new(info));
    tx.producer.kick()
}
