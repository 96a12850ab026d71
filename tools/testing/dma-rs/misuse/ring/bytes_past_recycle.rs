// SPDX-License-Identifier: GPL-2.0
//@revisions: ok bad

//! The bytes of a frame are kept when its buffer goes back to the ring.
//!
//! C: The buffer is posted, and `skb_copy()` comes after that.
//! Shows: As a frame that changes while it is copied, under load.

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

pub fn copy<'a, Q>(frame: Frame<'_, 'a, Q, KVec<u8>>, mut copy: impl FnMut(&[u8]))
where
    Q: RingRegisters<Direction = FromDevice>,
    Q::Descriptor: ReceiveDescriptor,
{
    let bytes = frame.bytes().unwrap_or(&[]);
    #[cfg(ok)]
    copy(bytes);
    frame.recycle(); //~[bad] E0505
    #[cfg(bad)]
    copy(bytes);
}
