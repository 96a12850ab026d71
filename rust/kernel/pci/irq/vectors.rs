// SPDX-License-Identifier: GPL-2.0

//! Several interrupt vectors of a device, each with a handler of its own.
//!
//! A device with queues has an interrupt for each of them, so that a queue is looked after where
//! its commands were submitted. [`Device::irq_vectors`] allocates the vectors, and lets the kernel
//! spread them over the CPUs. The device owns the vectors and their handlers, as it owns those of
//! [`Device::request_irq`]. So no handler runs when the device is unbound, whatever the driver
//! forgets.

use super::{
    super::{
        bus_master::BusMaster,
        managed::flags_of,
        Device, //
    },
    Claim,
    IrqType,
    IrqTypes,
    IrqVectorRegistration, //
};
use crate::{
    bindings,
    cpumask::Cpumask,
    device::{
        self,
        Bound,
        Core, //
    },
    devres,
    error::to_result,
    irq::{
        self,
        IrqRequest, //
    },
    prelude::*, //
};
use core::{
    num::NonZero,
    ops::RangeInclusive, //
};

/// Which CPUs get the interrupts of a device's vectors.
///
/// # Examples
///
/// See [`Device::irq_vectors`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IrqSpread {
    /// Any. The administrator may choose them (`/proc/irq/*/smp_affinity`).
    Anywhere,

    /// The kernel gives each CPU to one vector, and doesn't let anybody change that. It leaves out
    /// the first vectors, as many as this says: those that belong to no queue. (C:
    /// `PCI_IRQ_AFFINITY`, and `pre_vectors` of `struct irq_affinity`.)
    ///
    /// A vector whose CPUs are all offline delivers no interrupts. Its queue must be looked at
    /// without them then, or not be used.
    OverCpus {
        /// How many of the first vectors are not spread.
        but_first: u32,
    },
}

/// The interrupt vectors of a device, for which no handler was requested yet: an iterator.
///
/// [`Device::irq_vectors`] makes it. It gives each vector once.
pub struct IrqVectors<'a> {
    dev: &'a Device<Bound>,
    irq_type: IrqType,
    next: u32,
    len: u32,
}

impl IrqVectors<'_> {
    /// Returns the type of interrupt that the PCI core has chosen.
    #[inline]
    pub fn irq_type(&self) -> IrqType {
        self.irq_type
    }
}

impl<'a> Iterator for IrqVectors<'a> {
    type Item = FreeVector<'a>;

    #[inline]
    fn next(&mut self) -> Option<FreeVector<'a>> {
        if self.next == self.len {
            return None;
        }

        let index = self.next;

        self.next += 1;
        // INVARIANT: It was one of those that the device has, and isn't any more.
        Some(FreeVector {
            dev: self.dev,
            irq_type: self.irq_type,
            index,
        })
    }

    #[inline]
    fn size_hint(&self) -> (usize, Option<usize>) {
        // CAST: Widening.
        let left = (self.len - self.next) as usize;

        (left, Some(left))
    }
}

impl ExactSizeIterator for IrqVectors<'_> {}

/// An interrupt vector of a device that has no handler.
///
/// It can't be copied, and [`request`](Self::request) takes it. So a vector has one handler.
///
/// # Invariants
///
/// `dev` has a vector of that index, until its early resources are released. There is no other
/// value for that vector.
pub struct FreeVector<'a> {
    dev: &'a Device<Bound>,
    irq_type: IrqType,
    index: u32,
}

impl<'a> FreeVector<'a> {
    /// Returns which of the device's vectors it is, to tell the device which one a queue is to use.
    #[inline]
    pub fn index(&self) -> u32 {
        self.index
    }

    /// Returns the interrupt's number, by which user space knows it (C: `pci_irq_vector()`).
    ///
    /// # Errors
    ///
    /// [`EINVAL`] if `pdev` is another device.
    pub fn irq(&self, pdev: &Device<Core<'a>>) -> Result<u32> {
        if !core::ptr::eq(self.dev.as_raw(), pdev.as_raw()) {
            return Err(EINVAL);
        }

        // `Core` says that a callback of the bus is running, so the early resources are there yet.
        //
        // SAFETY: `dev` is a valid `struct pci_dev`, by the type invariant of `Device`.
        let irq = unsafe { bindings::pci_irq_vector(self.dev.as_raw(), self.index) };

        to_result(irq)?;
        // CAST: Not negative, as was just checked.
        Ok(irq as u32)
    }

    /// Returns the CPUs that get this interrupt. [`None`] if the kernel hasn't spread it, or if
    /// `pdev` is another device.
    ///
    /// A driver makes a table of it that says which queue a CPU uses. (C:
    /// `pci_irq_get_affinity()`.) Context: may sleep.
    pub fn cpus<'d>(&'d self, pdev: &'d Device<Core<'a>>) -> Option<&'d Cpumask> {
        self.irq(pdev).ok().filter(|irq| *irq > 0)?;

        // CAST: There are far fewer.
        // SAFETY: `dev` is a valid `struct pci_dev`, by the type invariant of `Device`, and has
        // that vector, as was just checked.
        let mask = unsafe { bindings::pci_irq_get_affinity(self.dev.as_raw(), self.index as i32) };

        if mask.is_null() {
            return None;
        }

        // SAFETY: The mask belongs to the vector, and isn't written after that was allocated. By
        // the type invariants the vector is there until the early resources are released: that is
        // after the callback during which `pdev` is borrowed. For legacy interrupts it is the mask
        // of all CPUs.
        Some(unsafe { Cpumask::from_raw(mask) })
    }

    /// Registers the handler of this vector, until the device is unbound.
    ///
    /// There is nothing to keep. The device owns the handler, and frees it when `unbind()` is
    /// done, or the probe has failed. A legacy interrupt is requested as shared. `name` shows in
    /// `/proc/interrupts`. Context: may sleep.
    ///
    /// # Errors
    ///
    /// [`EINVAL`] if `pdev` is another device, what `request_irq()` says, [`ENOMEM`], or what the
    /// initialiser says. The vector has no handler then, and gets none.
    ///
    /// # Examples
    ///
    /// See [`Device::irq_vectors`].
    pub fn request<H: irq::Handler + Send + 'a>(
        self,
        pdev: &Device<Core<'a>>,
        name: &'static CStr,
        handler: impl PinInit<H, Error> + 'a,
    ) -> Result {
        let irq = self.irq(pdev)?;
        let dev: &device::Device<Core<'a>> = pdev.as_ref();

        // SAFETY: `irq` belongs to a vector of this device, which was just looked up. By the type
        // invariants the vector stays allocated until early resources are released, and nobody else
        // registers a handler for it. The one that is registered here is released before the
        // vectors, since it is added after them.
        let request = unsafe { IrqRequest::new(dev.bound(), irq) };

        // SAFETY: The registration is given to the device, which drops it.
        let registration =
            unsafe { irq::Registration::new(request, flags_of(self.irq_type), name, handler) };

        devres::register_early(dev, registration, GFP_KERNEL)
    }
}

impl<'a> Device<Core<'a>> {
    /// Allocates interrupt vectors: as many as there are, and as `count` says. The device owns
    /// them until it is unbound.
    ///
    /// Use it for a device that has several. Where one is enough,
    /// [`request_irq`](Self::request_irq) does all in one call. Context: may sleep. (C:
    /// `pci_alloc_irq_vectors_affinity()`.)
    ///
    /// # Errors
    ///
    /// - [`EBUSY`] if the device has interrupt vectors already;
    /// - [`EINVAL`] if `count` has no number but 0, or if fewer vectors are asked for than are not
    ///   to be spread;
    /// - [`ENOSPC`] if there aren't so many; what the PCI core says, and [`ENOMEM`].
    ///
    /// # Examples
    ///
    /// A device with an interrupt for its events, and one for each queue. A CPU uses the queue
    /// whose interrupt it gets:
    ///
    /// ```
    /// # use kernel::{cpu::CpuId, device::Core, irq, pci, prelude::*, sync::{Arc, WaitQueue}};
    /// struct Waker(Arc<WaitQueue>);
    ///
    /// impl irq::Handler for Waker {
    ///     fn handle(&self) -> irq::IrqReturn {
    ///         self.0.wake_all();
    ///         irq::IrqReturn::Handled
    ///     }
    /// }
    ///
    /// /// Returns which queue this CPU is to use.
    /// fn probe(pdev: &pci::Device<Core<'_>>, events: Waker, queues: KVec<Waker>) -> Result<u32> {
    ///     let types = pci::IrqTypes::default().with(pci::IrqType::MsiX);
    ///     let spread = pci::IrqSpread::OverCpus { but_first: 1 };
    ///     let count = u32::try_from(queues.len())?;
    ///     let mut vectors = pdev.irq_vectors(2..=count + 1, types, spread)?;
    ///     let mut ours = 0;
    ///
    ///     vectors.next().ok_or(EIO)?.request(pdev, c"events", Ok(events))?;
    ///
    ///     for (vector, queue) in vectors.zip(queues) {
    ///         if vector.cpus(pdev).is_some_and(|cpus| cpus.test(CpuId::current())) {
    ///             ours = vector.index() - 1;
    ///         }
    ///         vector.request(pdev, c"queue", Ok(queue))?;
    ///     }
    ///
    ///     Ok(ours)
    /// }
    /// ```
    pub fn irq_vectors(
        &self,
        count: RangeInclusive<u32>,
        types: IrqTypes,
        spread: IrqSpread,
    ) -> Result<IrqVectors<'a>> {
        let (least, most) = (*count.start().max(&1), *count.end());
        let but_first = match spread {
            IrqSpread::Anywhere => 0,
            IrqSpread::OverCpus { but_first } => but_first,
        };

        if least > most || but_first > least {
            return Err(EINVAL);
        }

        let dev = self.bound();
        let vectors = allocate(dev, least, most, types, spread)?;
        let irq_type = vectors.irq_type();
        // CAST: `pci_alloc_irq_vectors_affinity()` has returned it.
        let len = vectors.len() as u32;

        // Added before any handler, so it goes after all of them.
        devres::register_early(self.as_ref(), Ok::<_, Error>(vectors), GFP_KERNEL)?;

        // INVARIANT: The device owns `len` vectors, and none was given away.
        Ok(IrqVectors {
            dev,
            irq_type,
            next: 0,
            len,
        })
    }
}

/// As [`Device::alloc_irq_vectors`], with CPUs.
fn allocate<'a>(
    dev: &'a Device<Bound>,
    least: u32,
    most: u32,
    types: IrqTypes,
    spread: IrqSpread,
) -> Result<IrqVectorRegistration<'a>> {
    let claim = Claim::new(dev)?;

    // The PCI core switches legacy interrupts, in the register of the bus master bit.
    let bit = BusMaster::find(dev);
    let _command = bit.as_ref().map(|bit| bit.exclude());

    let mut affinity = bindings::irq_affinity {
        pre_vectors: match spread {
            IrqSpread::Anywhere => 0,
            IrqSpread::OverCpus { but_first } => but_first,
        },
        ..pin_init::zeroed()
    };
    let (flag, affinity) = match spread {
        IrqSpread::Anywhere => (0, core::ptr::null_mut()),
        IrqSpread::OverCpus { .. } => (bindings::PCI_IRQ_AFFINITY, &raw mut affinity),
    };

    // SAFETY: `dev` is a valid `struct pci_dev`, by the type invariant of `Device`. `affinity` is
    // null without the flag, and else valid for the call, which doesn't keep it.
    let len = unsafe {
        bindings::pci_alloc_irq_vectors_affinity(
            dev.as_raw(),
            least,
            most,
            types.as_raw() | flag,
            affinity,
        )
    };

    to_result(len)?;

    // INVARIANT: `pci_alloc_irq_vectors_affinity()` has allocated that many vectors for `dev`,
    // which had none, and gets none while it is claimed.
    Ok(IrqVectorRegistration {
        dev,
        // CAST: Not negative, as was just checked.
        len: NonZero::new(len as usize).ok_or(EINVAL)?,
        _claim: claim,
    })
}
