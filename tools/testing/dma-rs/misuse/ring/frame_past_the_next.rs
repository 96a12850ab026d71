// SPDX-License-Identifier: GPL-2.0
//@revisions: ok bad

//! A frame is kept when the next one is looked for, and its slot goes back to the device.
//!
//! C: `frame` points into the ring's buffer until that is posted again.
//! Shows: As a frame that changes while it is parsed, under load.

use kernel::{
    dma::{
        ring::{
            Consumer,
            ReceiveDescriptor,
            RingRegisters, //
        },
        FromDevice, //
    },
    prelude::*, //
};

pub fn two<'a, Q>(rx: &mut Consumer<'a, Q, KVec<u8>>) -> usize
where
    Q: RingRegisters<Direction = FromDevice>,
    Q::Descriptor: ReceiveDescriptor,
{
    let one = rx.receive();
    #[cfg(ok)]
    let len = one.map_or(0, |frame| frame.len());
    let other = rx.receive(); //~[bad] E0499
    #[cfg(bad)]
    let len = one.map_or(0, |frame| frame.len());

    len + other.map_or(0, |frame| frame.len())
}
