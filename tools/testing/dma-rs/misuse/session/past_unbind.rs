// SPDX-License-Identifier: GPL-2.0
//@revisions: ok bad

//! A session is kept in a place that outlives the binding.
//!
//! C: A global pointer to the private data compiles.
//! Shows: When a file is used after unbind; KASAN sees it.

use kernel::{
    device::{
        Core,
        Device, //
    },
    dma::{
        Quiesce,
        Session, //
    },
    prelude::*, //
};

#[cfg(ok)]
type Kept<'a> = Session<'a, ()>;
#[cfg(bad)]
type Kept<'a> = Session<'static, ()>;

pub fn probe<'a, Q: Quiesce + 'a>(dev: &Device<Core<'a>>, quiesce: Q) -> Result<Kept<'a>> {
    Session::new(dev, quiesce, ()) //~[bad] ERROR: lifetime may not live long enough
}
