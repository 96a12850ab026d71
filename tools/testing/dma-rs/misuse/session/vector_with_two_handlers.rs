// SPDX-License-Identifier: GPL-2.0
//@revisions: ok bad

//! An interrupt vector gets two handlers, and another queue's gets none.
//!
//! C: `request_irq(pci_irq_vector(pdev, 0), ...)` compiles for each queue.
//! Shows: As `EBUSY` at the second request; or, if shared, as a queue that nobody looks after.

use kernel::{
    device::Core,
    irq,
    pci,
    prelude::*, //
};

pub struct Handler;

impl irq::Handler for Handler {
    fn handle(&self) -> irq::IrqReturn {
        irq::IrqReturn::Handled
    }
}

pub fn probe(pdev: &pci::Device<Core<'_>>) -> Result {
    let types = pci::IrqTypes::default().with(pci::IrqType::MsiX);
    let mut vectors = pdev.irq_vectors(2..=2, types, pci::IrqSpread::Anywhere)?;
    let vector = vectors.next().ok_or(EIO)?;

    vector.request(pdev, c"first", Ok(Handler))?;

    #[cfg(ok)]
    let vector = vectors.next().ok_or(EIO)?;

    vector.request(pdev, c"second", Ok(Handler)) //~[bad] E0382
}
