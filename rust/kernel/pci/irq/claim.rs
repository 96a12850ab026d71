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
    prelude::*, //
};

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
        // SAFETY: No requirements; the name is a valid C string.
        let new = unsafe {
            bindings::__devres_alloc_node(
                Some(Self::release),
                0,
                GFP_KERNEL.as_raw(),
                bindings::NUMA_NO_NODE,
                c"pci::irq::Claim".as_char_ptr(),
            )
        };

        if new.is_null() {
            return Err(ENOMEM);
        }

        // Finds the claim that there is, or adds this one, under the lock of the list.
        //
        // SAFETY: `dev` is a valid and bound `struct device`; `new` was returned by
        // `__devres_alloc_node()`, and is added, or freed if there is another one.
        let found = unsafe {
            bindings::devres_get(dev.as_ref().as_raw(), new, None, core::ptr::null_mut())
        };

        if found != new {
            return Err(EBUSY);
        }

        let this = Self(dev);

        // SAFETY: `dev` is a valid `struct pci_dev`.
        if unsafe { bindings::pci_irq_type(dev.as_raw()) } != bindings::PCI_IRQ_INTX {
            return Err(EBUSY);
        }

        Ok(this)
    }

    /// Does nothing: the address of this function is what marks a resource as a claim. Not inlined,
    /// nor are its users, so that no other crate has a copy of it.
    ///
    /// # Safety
    ///
    /// None.
    #[inline(never)]
    unsafe extern "C" fn release(_dev: *mut bindings::device, _res: *mut c_void) {
        // The compiler may give functions of equal bodies one address. No other function reads
        // this static, so none can be taken for this one.
        static MARK: u8 = 0;

        // SAFETY: `MARK` is a valid, initialised static.
        unsafe { core::ptr::read_volatile(&raw const MARK) };
    }
}

impl Drop for Claim<'_> {
    #[inline(never)]
    fn drop(&mut self) {
        // While the device's resources are being released this finds nothing, and the claim goes
        // with them.
        //
        // SAFETY: `self.0` is a valid `struct device`.
        unsafe {
            bindings::devres_destroy(
                self.0.as_ref().as_raw(),
                Some(Self::release),
                None,
                core::ptr::null_mut(),
            )
        };
    }
}
