// SPDX-License-Identifier: GPL-2.0
//@revisions: ok bad

//! Threads share a frame, though it is synced when one of them looks at it first.
//!
//! C: Both call `dma_sync_single_for_cpu()`, or each relies on the other.
//! Shows: With bounce buffers: one reads while the other copies.

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

fn on_two_cpus<T: Sync>(shared: T) {
    drop(shared);
}

pub fn look<'a, Q>(frame: Frame<'_, 'a, Q, KVec<u8>>)
where
    Q: RingRegisters<Direction = FromDevice>,
    Q::Descriptor: ReceiveDescriptor,
{
    #[cfg(ok)]
    on_two_cpus(frame.bytes());
    #[cfg(bad)]
    on_two_cpus(frame); //~[bad] E0277
}
