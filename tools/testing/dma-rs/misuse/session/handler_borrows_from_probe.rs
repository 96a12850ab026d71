// SPDX-License-Identifier: GPL-2.0
//@revisions: ok bad

//! An interrupt handler borrows what is gone when the probe returns.
//!
//! C: `request_irq(..., &local)` compiles.
//! Shows: At the first interrupt after the probe; KASAN sees it.

use kernel::{
    device::Core,
    irq,
    pci,
    prelude::*, //
};

pub struct Handler<'a>(&'a [u32]);

impl irq::Handler for Handler<'_> {
    fn handle(&self) -> irq::IrqReturn {
        if self.0.is_empty() {
            irq::IrqReturn::None
        } else {
            irq::IrqReturn::Handled
        }
    }
}

pub fn probe<'a>(pdev: &pci::Device<Core<'a>>, lent: &'a [u32]) -> Result<pci::IrqType> {
    #[cfg(bad)]
    let table = KVec::from_elem(lent.len() as u32, 4, GFP_KERNEL)?;
    #[cfg(bad)]
    let lent = &table[..]; //~[bad] E0597

    pdev.request_irq(pci::IrqTypes::all(), c"handler", Ok(Handler(lent)))
}
