// SPDX-License-Identifier: GPL-2.0
//@revisions: ok bad

//! A closure that is lent a frame keeps it.
//!
//! C: The callback stores the pointer; the buffer is posted when it returns.
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

pub fn longest<'a, Q>(rx: &mut Consumer<'a, Q, KVec<u8>>) -> usize
where
    Q: RingRegisters<Direction = FromDevice>,
    Q::Descriptor: ReceiveDescriptor,
{
    #[cfg(bad)]
    let mut kept = None;
    let mut longest = 0;

    rx.receive_each(64, |frame| {
        longest = longest.max(frame.len());
        #[cfg(bad)]
        kept.replace(frame); //~[bad] E0521
    });
    longest
}
