// SPDX-License-Identifier: GPL-2.0
//@revisions: ok bad

//! A mapping is used without a look at whether it failed.
//!
//! C: `dma_map_single()` returns a number; that of a failure is one, too.
//! Shows: When bounce buffers or an IOMMU's addresses run out; dma-debug warns, if it is on.

use kernel::{
    dma::{
        Mapper,
        Streaming,
        ToDevice, //
    },
    prelude::*, //
};

pub fn send(dma: Mapper<'_>, buf: KVec<u8>) -> Result<usize> {
    #[cfg(ok)]
    let sent = Streaming::<_, ToDevice>::map(dma, buf)?;
    #[cfg(bad)]
    let sent = Streaming::<_, ToDevice>::map(dma, buf);

    Ok(sent.len()) //~[bad] E0599
}
