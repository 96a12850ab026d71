// SPDX-License-Identifier: GPL-2.0
//@revisions: ok bad

//! The driver releases a channel, and has memory mapped for it.
//!
//! C: Each has a pointer of its own.
//! Shows: As an engine that writes to memory of somebody else, when it was at work.

use kernel::{
    device::{
        Bound,
        Device, //
    },
    dma::{
        dmaengine::Channel,
        FromDevice,
        Streaming, //
    },
    prelude::*, //
};

pub fn prepare(dev: &Device<Bound>, buf: KVec<u8>) -> Result<KVec<u8>> {
    let channel = Channel::request(dev, c"rx")?;
    let buf = Streaming::<_, FromDevice>::map(channel.mapper(), buf)?;

    #[cfg(bad)]
    drop(channel); //~[bad] E0505

    let buf = buf.take_back().map_err(|_| EBUSY)?;

    Ok(buf.unmap())
}
