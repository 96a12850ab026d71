// SPDX-License-Identifier: GPL-2.0
//@revisions: ok bad

//! What the device has written to a descriptor is believed.
//!
//! C: `desc->length` is a number.
//! Shows: With a broken or hostile device.

use kernel::{
    dma::{
        ring::{
            Frame,
            ReceiveDescriptor,
            RingRegisters, //
        },
        FromDevice, //
    },
    prelude::*, //
};

pub trait Checksum {
    fn checksum(&self) -> u16;
}

pub fn checksum<'a, Q>(frame: &Frame<'_, 'a, Q, KVec<u8>>) -> Result<u16>
where
    Q: RingRegisters<Direction = FromDevice>,
    Q::Descriptor: ReceiveDescriptor + Checksum,
{
    #[cfg(ok)]
    let sum = frame
        .descriptor()
        .validate(|descriptor| Ok(descriptor.checksum()));
    #[cfg(bad)]
    let sum = Ok(frame.descriptor().checksum()); //~[bad] E0599

    sum
}
