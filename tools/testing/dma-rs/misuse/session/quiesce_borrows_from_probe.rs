// SPDX-License-Identifier: GPL-2.0
//@revisions: ok bad

//! What stops the device borrows from the stack of the probe.
//!
//! C: The remove function uses a pointer that the probe has left.
//! Shows: At unbind; KASAN sees it.

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

pub trait Stopper<'r>: Quiesce {
    fn new(registers: &'r [u32; 4]) -> Self;
}

pub fn probe<'a, Q: Stopper<'a> + 'a>(
    dev: &Device<Core<'a>>,
    registers: &'a [u32; 4],
) -> Result<Session<'a, ()>> {
    #[cfg(bad)]
    let copied = *registers;
    #[cfg(bad)]
    let registers = &copied; //~[bad] E0597

    Session::new(dev, Q::new(registers), ())
}
