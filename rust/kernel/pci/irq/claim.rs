// SPDX-License-Identifier: GPL-2.0

//! Who may allocate a device's interrupt vectors.
//!
//! Freeing vectors (`pci_free_irq_vectors()`) frees *all* vectors of a device. A second allocation
//! would thus be freed with the first one, under its handlers; and with legacy interrupts first and
//! MSI second, the handler of the first would get no interrupts any more. So there is one
//! allocation at a time, whatever its kind.

use super::super::Device;
use crate::{
    bindings,
    device::Bound,
    devres::Kind,
    prelude::*, //
};

/// Marks the resource that says that the vectors of a device are claimed.
static CLAIM: Kind = Kind::new();

/// The right to allocate the interrupt vectors of a device. A bound device has one at most.
///
/// It is a resource of the device, not a flag, so that it goes at unbind if its owner is forgotten.
pub(super) struct Claim<'a>(&'a Device<Bound>);

impl<'a> Claim<'a> {
    /// Claims the vectors of a device, which has none.
    ///
    /// Two threads that try at the same time don't both succeed. Context: may sleep.
    ///
    /// # Errors
    ///
    /// - [`EBUSY`] if the vectors are claimed, or if the device has vectors of which nobody here
    ///   knows: an earlier driver has left them, or C code has allocated them;
    /// - [`ENOMEM`].
    pub(super) fn new(dev: &'a Device<Bound>) -> Result<Self> {
        CLAIM.add_only(dev.as_ref(), ())?;

        let this = Self(dev);

        // SAFETY: `dev` is a valid `struct pci_dev`, by the type invariant of `Device`.
        if unsafe { bindings::pci_irq_type(dev.as_raw()) } != bindings::PCI_IRQ_INTX {
            return Err(EBUSY);
        }

        Ok(this)
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        // While the device's resources are being released there is none any more, and the claim
        // goes with them.
        CLAIM.release(self.0.as_ref());
    }
}
