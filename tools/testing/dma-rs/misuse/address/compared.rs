// SPDX-License-Identifier: GPL-2.0
//@revisions: ok bad

//! An address is compared with a number that stands for a failure.
//!
//! C: Drivers compare with 0, or with -1; `DMA_MAPPING_ERROR` is neither on all machines.
//! Shows: When a mapping fails (CVE-2024-57800).

use kernel::{
    dma::{
        Mapper,
        Streaming,
        ToDevice, //
    },
    prelude::*, //
};

pub fn send(dma: Mapper<'_>, buf: KVec<u8>) -> Result<usize> {
    let sent = Streaming::<_, ToDevice>::map(dma, buf)?;
    #[cfg(bad)]
    if sent.address() == 0 {
        //~[bad]^ E0369
        return Err(ENOMEM);
    }

    Ok(sent.len())
}
