// SPDX-License-Identifier: GPL-2.0
//@revisions: ok bad

//! The address of a buffer outlives the function that owns the buffer.
//!
//! C: The function returns a number, and frees what it stands for in its error path.
//! Shows: Behind an IOMMU as a fault; elsewhere as corruption.

use kernel::{
    dma::{
        DmaAddr,
        Mapper,
        Streaming,
        ToDevice, //
    },
    prelude::*, //
};

pub fn map<'a>(dma: Mapper<'a>, buf: KVec<u8>, show: impl FnOnce(DmaAddr<'_>)) -> Result {
    let buf = Streaming::<_, ToDevice>::map(dma, buf)?;

    show(buf.address());
    Ok(())
}

#[cfg(bad)]
pub fn address<'a>(dma: Mapper<'a>, buf: KVec<u8>) -> Result<DmaAddr<'a>> {
    let buf = Streaming::<_, ToDevice>::map(dma, buf)?;

    Ok(buf.address()) //~[bad] E0515
}
