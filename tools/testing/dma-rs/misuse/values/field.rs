// SPDX-License-Identifier: GPL-2.0
//@revisions: ok bad

//! A field of a descriptor that the device wrote is used without a check.
//!
//! C: `desc->flags` is a field.
//! Shows: With a broken or hostile device.

use kernel::{
    dma::Untrusted,
    prelude::*, //
};

#[derive(Clone, Copy)]
pub struct Descriptor {
    pub flags: u32,
}

pub fn flags(descriptor: Untrusted<Descriptor>) -> Result<u32> {
    #[cfg(ok)]
    let flags = descriptor.validate(|descriptor| match descriptor.flags & !7 {
        0 => Ok(descriptor.flags),
        _ => Err(EIO),
    })?;
    #[cfg(bad)]
    let flags = descriptor.flags; //~[bad] E0609

    Ok(flags)
}
