// SPDX-License-Identifier: GPL-2.0
//@revisions: ok bad

//! A structure with a pointer is given to the device, which may overwrite it.
//!
//! C: Descriptors that have a `void *` for the driver's own use are common.
//! Shows: As a jump to where a broken or hostile device wants.

use kernel::{
    dma::{
        FromDevice,
        Mapper,
        Streaming, //
    },
    prelude::*, //
};

/// A cookie is an index, which is checked when it comes back.
#[cfg(ok)]
#[derive(FromBytes, IntoBytes)]
#[repr(C)]
pub struct Command {
    cookie: u64,
}

#[cfg(bad)]
#[repr(C)]
pub struct Command {
    callback: &'static fn(),
}

pub fn receive(dma: Mapper<'_>, command: KBox<Command>) {
    drop(Streaming::<_, FromDevice>::map(dma, command)); //~[bad] E0277
}
