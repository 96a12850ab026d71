// SPDX-License-Identifier: GPL-2.0

//! PCI resources that belong to the device.

use super::{
    Bar,
    Device,
    IrqType,
    IrqTypes,
    IrqVectorRegistration, //
};
use crate::{
    device::{
        Bound,
        Core, //
    },
    devres::{
        self,
        Lendable, //
    },
    irq::{
        self,
        IrqRequest, //
    },
    prelude::*, //
};

/// An interrupt line and its handler.
///
/// The handler goes first, as it is declared first.
#[pin_data]
struct Line<'a, H: irq::Handler> {
    #[pin]
    registration: irq::Registration<'a, H>,
    vectors: IrqVectorRegistration<'a>,
}

// SAFETY: Dropping it unmaps and releases the region, for which the device needs not be bound.
unsafe impl<const SIZE: usize> Lendable for Bar<'_, SIZE> {}

// SAFETY: Dropping it frees the vectors, for which the device needs not be bound.
unsafe impl Lendable for IrqVectorRegistration<'_> {}

/// Returns how an interrupt of that type is requested.
pub(super) fn flags_of(irq_type: IrqType) -> irq::Flags {
    match irq_type {
        IrqType::Intx => irq::Flags::SHARED,
        IrqType::Msi | IrqType::MsiX => irq::Flags::TRIGGER_NONE,
    }
}

impl<'a> Device<Core<'a>> {
    /// Returns the device for as long as it stays bound.
    ///
    /// See [`device::Device::bound`](crate::device::Device::bound).
    #[inline]
    pub fn bound(&self) -> &'a Device<Bound> {
        // SAFETY: As for `device::Device::bound()`; a `pci::Device<Core>` is a bound one, and the
        // contexts don't affect layout.
        unsafe { &*core::ptr::from_ref(self).cast() }
    }

    /// Allocates one interrupt vector and registers its handler, until the device is unbound.
    ///
    /// Returns the type of interrupt that the PCI core chose from `types`; a legacy interrupt is
    /// requested as shared. There is nothing to keep and nothing to forget: the device owns both,
    /// and frees them when `unbind()` is done. Context: may sleep.
    ///
    /// # Errors
    ///
    /// [`EBUSY`] if the device has interrupt vectors already, what `pci_alloc_irq_vectors()` and
    /// `request_irq()` say, [`ENOMEM`], or what the initialiser says.
    ///
    /// # Examples
    ///
    /// ```
    /// # use kernel::{device::Core, irq, pci, prelude::*, sync::{Arc, WaitQueue}};
    /// struct IrqHandler(Arc<WaitQueue>);
    ///
    /// impl irq::Handler for IrqHandler {
    ///     fn handle(&self) -> irq::IrqReturn {
    ///         self.0.wake_all();
    ///         irq::IrqReturn::Handled
    ///     }
    /// }
    ///
    /// fn probe(pdev: &pci::Device<Core<'_>>, queue: Arc<WaitQueue>) -> Result {
    ///     let waker = IrqHandler(queue);
    ///     let chosen = pdev.request_irq(pci::IrqTypes::all(), c"example", Ok(waker))?;
    ///
    ///     dev_info!(pdev, "{chosen:?} interrupt\n");
    ///     Ok(())
    /// }
    /// ```
    pub fn request_irq<H: irq::Handler + Send + 'a>(
        &self,
        types: IrqTypes,
        name: &'static CStr,
        handler: impl PinInit<H, Error> + 'a,
    ) -> Result<IrqType> {
        let vectors = self.bound().alloc_irq_vectors(1, 1, types)?;
        let irq = IrqRequest::from(vectors.index(0)?).irq();
        let chosen = vectors.irq_type();

        let flags = flags_of(chosen);

        // SAFETY: `irq` was just allocated for this device, and stays allocated for longer than the
        // registration, by the order of the fields of `Line`, and as there is no second allocation.
        let request = unsafe { IrqRequest::new(self.bound().as_ref(), irq) };

        // SAFETY: The registration is given to the device, which drops it.
        let registration = unsafe { irq::Registration::new(request, flags, name, handler) };

        let device: &crate::device::Device<Core<'a>> = self.as_ref();
        let line = try_pin_init!(Line {
            vectors,
            registration <- registration,
        }? Error);

        devres::register_early(device, line, GFP_KERNEL)?;

        Ok(chosen)
    }
}
