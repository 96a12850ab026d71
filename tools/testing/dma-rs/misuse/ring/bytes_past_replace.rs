// SPDX-License-Identifier: GPL-2.0
//@revisions: ok bad

//! The bytes of a frame are kept in the ring's view when the buffer leaves the ring.
//!
//! C: The pointer stays, and the final unmap changes what it points to.
//! Shows: With bounce buffers, or without cache coherence.

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

pub fn keep<'a, Q>(frame: Frame<'_, 'a, Q, KVec<u8>>, spare: KVec<u8>, mut look: impl FnMut(&[u8]))
where
    Q: RingRegisters<Direction = FromDevice>,
    Q::Descriptor: ReceiveDescriptor,
{
    let bytes = frame.bytes().unwrap_or(&[]);
    #[cfg(ok)]
    look(bytes);
    drop(frame.replace(spare)); //~[bad] E0505
    #[cfg(bad)]
    look(bytes);
}
