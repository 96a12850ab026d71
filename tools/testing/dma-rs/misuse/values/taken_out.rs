// SPDX-License-Identifier: GPL-2.0
//@revisions: ok bad

//! A value of the device is taken out without a check.
//!
//! C: It is a field.
//! Shows: With a broken or hostile device.

use kernel::{
    dma::Untrusted,
    prelude::*, //
};

pub fn id(id: Untrusted<u32>) -> Result<u32> {
    #[cfg(ok)]
    let id = id.validate(|id| if id == 0x1234 { Ok(id) } else { Err(ENODEV) })?;
    #[cfg(bad)]
    let id = id.0; //~[bad] E0616

    Ok(id)
}
