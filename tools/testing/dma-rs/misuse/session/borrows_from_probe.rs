// SPDX-License-Identifier: GPL-2.0
//@revisions: ok bad

//! What the device may access borrows from the stack of the probe.
//!
//! C: A pointer to a local variable in the private data compiles.
//! Shows: As corruption of the stack of whoever runs later.

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

pub fn probe<'a, Q: Quiesce + 'a>(
    dev: &Device<Core<'a>>,
    quiesce: Q,
) -> Result<Session<'a, KVec<u8>>> {
    let table = KVec::from_elem(0_u8, 64, GFP_KERNEL)?;

    Session::new(dev, quiesce, table)
}

#[cfg(bad)]
pub fn borrowing<'a, Q: Quiesce + 'a>(
    dev: &Device<Core<'a>>,
    quiesce: Q,
) -> Result<Session<'a, &'a [u8]>> {
    let table = KVec::from_elem(0_u8, 64, GFP_KERNEL)?;

    Session::new(dev, quiesce, &table[..]) //~[bad] E0515
}
