// SPDX-License-Identifier: GPL-2.0
//@revisions: ok bad

//! A closure that is lent what belongs to the device keeps it past unbind.
//!
//! C: `file->private_data` stays when the device is unbound.
//! Shows: When a file is used after unbind; KASAN sees it.

use kernel::{
    device::{
        Bound,
        Device, //
    },
    devres::DevresSrcu,
    prelude::*,
    types::ForLt, //
};

pub struct Registers<'a> {
    pub dev: &'a Device<Bound>,
}

pub fn name(handle: &DevresSrcu<ForLt!(Registers<'_>)>) -> Result {
    #[cfg(bad)]
    let mut kept = None;

    handle.try_access_with(|registers| {
        #[cfg(bad)]
        kept.replace(registers.dev); //~[bad] E0521
        look(registers.dev);
    })
}

fn look(dev: &Device<Bound>) {
    let _ = dev.name();
}
