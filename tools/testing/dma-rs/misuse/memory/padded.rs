// SPDX-License-Identifier: GPL-2.0
//@revisions: ok bad

//! A structure with padding is sent: the device gets bytes that nobody has written.
//!
//! C: The padding holds what was on the stack or the heap before.
//! Shows: As a leak of kernel memory to the device. KMSAN sees it, where that is on.

use kernel::{
    dma::{
        Mapper,
        Streaming,
        ToDevice, //
    },
    prelude::*, //
};

/// Three bytes after `tag` belong to no field.
#[cfg(bad)]
#[derive(FromBytes)]
#[repr(C)]
pub struct Command {
    tag: u8,
    value: u32,
}

/// They have a name, and a value.
#[cfg(ok)]
#[derive(FromBytes, IntoBytes)]
#[repr(C)]
pub struct Command {
    tag: u8,
    reserved: [u8; 3],
    value: u32,
}

pub fn send(dma: Mapper<'_>, command: KBox<Command>) {
    drop(Streaming::<_, ToDevice>::map(dma, command)); //~[bad] E0277
}
