// SPDX-License-Identifier: GPL-2.0
//@revisions: ok bad

//! The probe keeps the reference that proves that a bus callback is running.
//!
//! C: There is no such reference.
//! Shows: As a call that needs the device lock, without it; lockdep sees some.

use kernel::{
    device::{
        self,
        Core,
        Device, //
    },
    prelude::*, //
};

#[cfg(ok)]
type State<'a> = device::Bound;
#[cfg(bad)]
type State<'a> = Core<'a>;

pub struct Data<'a> {
    pub dev: &'a Device<State<'a>>,
}

pub fn probe<'a>(dev: &Device<Core<'a>>) -> Result<Data<'a>> {
    #[cfg(ok)]
    let dev = dev.bound();

    Ok(Data { dev }) //~[bad] E0621
}
