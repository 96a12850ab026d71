// SPDX-License-Identifier: GPL-2.0
//@revisions: ok bad

//! A buffer that was mapped for one direction is used in the other.
//!
//! C: The direction is an argument of each call; a slip compiles.
//! Shows: dma-debug, if it is on; without cache coherence, with bounce buffers.

use kernel::{
    dma::{
        FromDevice,
        Mapper,
        Streaming, //
    },
    prelude::*, //
};

#[cfg(ok)]
type Way = FromDevice;
#[cfg(bad)]
type Way = kernel::dma::ToDevice;

fn receive(buf: Streaming<'_, KVec<u8>, FromDevice>) {
    drop(buf);
}

pub fn post(dma: Mapper<'_>, buf: KVec<u8>) -> Result {
    let buf = Streaming::<_, Way>::map(dma, buf)?;

    receive(buf); //~[bad] E0308
    Ok(())
}
