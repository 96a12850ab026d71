// SPDX-License-Identifier: GPL-2.0
//@revisions: ok bad

//! A closure that is lent a frame keeps its bytes.
//!
//! C: The callback stores the pointer; the buffer is posted when it returns.
//! Shows: As a header that changes while it is parsed, under load.

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

pub fn first<'a, Q>(rx: &mut Consumer<'a, Q, KVec<u8>>) -> u8
where
    Q: RingRegisters<Direction = FromDevice>,
    Q::Descriptor: ReceiveDescriptor,
{
    #[cfg(bad)]
    let mut kept = None;
    let mut first = 0;

    rx.receive_each(64, |frame| {
        first = frame.bytes().and_then(<[u8]>::first).copied().unwrap_or(0);
        #[cfg(bad)]
        (kept = frame.bytes()); //~[bad] E0521
    });
    #[cfg(bad)]
    drop(kept);
    first
}
