// SPDX-License-Identifier: GPL-2.0
//@revisions: ok bad

//! A ring has buffers from `vmalloc()`.
//!
//! C: Any pointer can be posted.
//! Shows: A warning and an error of the DMA core; on old kernels a foreign page is sent.
//! Says: `Vec<u8, Vmalloc>` can't be mapped for DMA

use kernel::{
    dma::{
        ring::{
            Producer,
            RingRegisters, //
        },
        ToDevice, //
    },
    prelude::*, //
};

#[cfg(ok)]
type Bytes = KVec<u8>;
#[cfg(bad)]
type Bytes = VVec<u8>;

pub fn free<'a, Q: RingRegisters<Direction = ToDevice>>(tx: &Producer<'a, Q, Bytes>) -> u32 {
    //~[bad]^ E0277
    tx.free() //~[bad] E0599
}
