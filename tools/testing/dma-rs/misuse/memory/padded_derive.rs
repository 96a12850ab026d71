// SPDX-License-Identifier: GPL-2.0
//@revisions: ok bad

//! A structure with padding is declared to have none.
//!
//! C: Nothing declares it; `__packed` is remembered, or not.
//! Shows: As a leak of kernel memory to the device.

use kernel::prelude::*;

#[cfg(ok)]
#[derive(FromBytes, IntoBytes)]
#[repr(C)]
pub struct Command {
    tag: u8,
    reserved: [u8; 3],
    value: u32,
}

#[cfg(bad)]
#[derive(FromBytes, IntoBytes)] //~[bad] E0277
#[repr(C)]
pub struct Command {
    tag: u8,
    value: u32,
}
