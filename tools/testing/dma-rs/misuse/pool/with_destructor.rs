// SPDX-License-Identifier: GPL-2.0
//@revisions: ok bad
//@compile-flags: --emit=obj

//! A block holds something that has to be dropped, which nobody does.
//!
//! C: What a block points to is freed by hand, or not.
//! Shows: As a leak.
//! Says: nobody drops what is in a block

use kernel::{
    device::{
        Core,
        Device, //
    },
    dma::Pool,
    prelude::*, //
};

#[derive(FromBytes, IntoBytes)]
#[repr(transparent)]
pub struct Command(u64);

#[cfg(bad)]
impl Drop for Command {
    fn drop(&mut self) {
        self.0 = 0;
    }
}

pub fn commands<'a>(dev: &Device<Core<'a>>) -> Result<&'a Pool<'a, Command>> {
    Pool::with_layout::<8, 0>(dev, c"commands") //~[bad] E0080
}
