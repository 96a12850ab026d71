// SPDX-License-Identifier: GPL-2.0
//@revisions: ok bad

//! The direction is given as C has it, which is a value that may differ from call to call.
//!
//! C: `enum dma_data_direction` is an argument of each call.
//! Shows: dma-debug, if it is on; without cache coherence, with bounce buffers.
//! Says: `DataDirection` is not a direction of DMA

use kernel::{
    dma::{
        self,
        Streaming, //
    },
    prelude::*, //
};

#[cfg(ok)]
type Way = dma::ToDevice;
#[cfg(bad)]
type Way = dma::DataDirection;

pub struct Sent<'a> {
    pub buf: Streaming<'a, KVec<u8>, Way>, //~[bad] E0277
}
