// SPDX-License-Identifier: GPL-2.0
//@revisions: ok bad

//! A buffer is mapped, and the driver ignores the result.
//!
//! C: The result may be ignored.
//! Shows: As a mapping that leaks, or a transfer that never begins.

#![deny(unused_must_use)]

use kernel::{
    dma::{
        Mapper,
        Streaming,
        ToDevice, //
    },
    prelude::*, //
};

pub fn send(dma: Mapper<'_>, buf: KVec<u8>) -> Result {
    #[cfg(ok)]
    drop(Streaming::<_, ToDevice>::map(dma, buf)?);
    #[cfg(bad)]
    Streaming::<_, ToDevice>::map(dma, buf); //~[bad] unused_must_use

    Ok(())
}
