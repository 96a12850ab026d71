// SPDX-License-Identifier: GPL-2.0
//@revisions: ok bad

//! Blocks of a type with padding, or with values that aren't valid, are shared with a device.
//!
//! C: A structure is what its bytes are.
//! Shows: As a leak of kernel memory to the device; as an enumeration with another value.

use kernel::{
    device::{
        Core,
        Device, //
    },
    dma::Pool,
    prelude::*, //
};

#[cfg(ok)]
#[derive(FromBytes, IntoBytes)]
#[repr(C)]
pub struct Command {
    tag: u8,
    reserved: [u8; 3],
    value: u32,
}

#[cfg(bad)]
#[derive(FromBytes)]
#[repr(C)]
pub struct Command {
    tag: u8,
    value: u32,
}

pub fn commands<'a>(dev: &Device<Core<'a>>) {
    let _ = Pool::<Command>::new(dev, c"commands"); //~[bad] E0599
}
