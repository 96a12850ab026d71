// SPDX-License-Identifier: GPL-2.0
//@revisions: ok bad

//! A buffer is mapped twice, so that two mappings have its cache lines.
//!
//! C: `dma_map_single()` twice compiles.
//! Shows: dma-debug counts overlaps, not on x86; without cache coherence one sync undoes the
//!   other.

use kernel::{
    dma::{
        FromDevice,
        Mapper,
        Streaming, //
    },
    prelude::*, //
};

pub fn post(dma: Mapper<'_>, buf: KVec<u8>) {
    drop(Streaming::<_, FromDevice>::map(dma, buf));
    #[cfg(bad)]
    drop(Streaming::<_, FromDevice>::map(dma, buf)); //~[bad] E0382
}
