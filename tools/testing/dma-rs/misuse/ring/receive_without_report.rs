// SPDX-License-Identifier: GPL-2.0
//@revisions: ok bad

//! A ring receives, but nothing says how many bytes the device has written.
//!
//! C: The driver takes the length of the buffer for that of the frame.
//! Shows: As frames with the rest of the frame before.
//! Says: a ring can't receive by descriptors of the type `T`

use kernel::{
    dma::{
        ring::{
            self,
            Consumer,
            RingRegisters, //
        },
        FromDevice, //
    },
    prelude::*, //
};
#[cfg(bad)]
use ring::Descriptor as Known;
#[cfg(ok)]
use ring::ReceiveDescriptor as Known;

fn poll<'a, Q>(rx: &mut Consumer<'a, Q, KVec<u8>>) -> u32
where
    Q: RingRegisters<Direction = FromDevice>,
    Q::Descriptor: ring::ReceiveDescriptor,
{
    rx.receive_each(64, |frame| frame.recycle())
}

pub fn clean<'a, Q, T>(rx: &mut Consumer<'a, Q, KVec<u8>>) -> u32
where
    Q: RingRegisters<Direction = FromDevice, Descriptor = T>,
    T: Known,
{
    poll(rx) //~[bad] E0277
}
