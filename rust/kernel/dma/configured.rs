// SPDX-License-Identifier: GPL-2.0

//! The DMA set-up of a device.
//!
//! A driver says once, before its `probe()` runs, how its device addresses memory: [`Setup`]. The
//! bus adapter applies it, and `probe()` collects the proof that this was done: [`Configured`].
//! Every map and every allocation takes that proof, so nothing can be mapped for a device whose
//! mask was never set, and no mask can change while a mapping lives.
//!
//! C header: [`include/linux/dma-mapping.h`](srctree/include/linux/dma-mapping.h)

use super::{
    binding::Binding,
    DmaMask,
    Waiters, //
};
use crate::{
    bindings,
    device::{
        Bound,
        Core,
        Device, //
    },
    error::to_result,
    page::PAGE_SIZE,
    prelude::*,
    sync::Arc, //
};

/// How a device addresses memory: masks, segment limits and alignment.
///
/// A limit that is not given stays as the bus, or an earlier driver, left it.
///
/// Returned by `Driver::dma_setup()` of the bus ([`pci::Driver::dma_setup`],
/// [`platform::Driver::dma_setup`]), which the bus adapter calls before `probe()`. There is no
/// 64-then-32 ladder: masks of 32 bits and more never fail, a smaller one fails only where the
/// platform really can't serve it.
///
/// [`pci::Driver::dma_setup`]: kernel::pci::Driver::dma_setup
/// [`platform::Driver::dma_setup`]: kernel::platform::Driver::dma_setup
///
/// # Examples
///
/// ```
/// use kernel::dma::{DmaMask, Setup};
///
/// const SETUP: Setup = Setup::new(DmaMask::new::<64>())
///     .coherent_mask(DmaMask::new::<32>())
///     .max_segment_size(64 * 1024);
///
/// assert_eq!(SETUP.streaming_mask(), DmaMask::new::<64>());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setup {
    mask: DmaMask,
    coherent_mask: DmaMask,
    max_segment_size: Option<u32>,
    segment_boundary: Option<usize>,
    min_align_mask: Option<u32>,
}

impl Setup {
    /// The addresses that the device can drive, for streaming mappings and coherent memory alike.
    #[inline]
    pub const fn new(mask: DmaMask) -> Self {
        Self {
            mask,
            coherent_mask: mask,
            max_segment_size: None,
            segment_boundary: None,
            min_align_mask: None,
        }
    }

    /// A smaller mask for coherent memory, for devices whose descriptors hold fewer address bits.
    #[inline]
    pub const fn coherent_mask(mut self, mask: DmaMask) -> Self {
        self.coherent_mask = mask;
        self
    }

    /// The longest segment, in bytes, that one entry of the device's scatter-gather list can name.
    #[inline]
    pub const fn max_segment_size(mut self, bytes: u32) -> Self {
        self.max_segment_size = Some(bytes);
        self
    }

    /// One less than the power of two that no segment may cross, for instance `0xffff` for 64 KiB.
    #[inline]
    pub const fn segment_boundary(mut self, mask: usize) -> Self {
        self.segment_boundary = Some(mask);
        self
    }

    /// The low address bits that a bounce buffer must keep, for instance `0xfff` for a device that
    /// derives an offset in the page from the bus address. Not more than a page.
    #[inline]
    pub const fn min_align_mask(mut self, mask: u32) -> Self {
        self.min_align_mask = Some(mask);
        self
    }

    /// Returns the mask for streaming mappings.
    #[inline]
    pub const fn streaming_mask(&self) -> DmaMask {
        self.mask
    }

    /// Applies the set-up to a device that is about to be probed.
    ///
    /// Called by the bus adapters, before `probe()`; `resumes` is whether the driver can go on
    /// after a stop. The set-up holds until unbind.
    ///
    /// # Errors
    ///
    /// - [`EINVAL`] for a mask of zero bits, for a boundary or an alignment that isn't one less
    ///   than a power of two, and for segment limits on a bus that has none (`dev->dma_parms` is
    ///   not set).
    /// - [`EIO`] if the platform can't serve the mask.
    /// - [`EBUSY`] if the device was set up differently since it was bound.
    /// - [`ENOSPC`] if the device, under earlier drivers, has leaked too much memory.
    /// - [`ENOMEM`].
    pub(crate) fn apply(self, dev: &Device<Core<'_>>, resumes: bool) -> Result {
        if let Some(binding) = Binding::find(dev) {
            return if binding.setup() == self {
                Ok(())
            } else {
                Err(EBUSY)
            };
        }

        self.check(dev)
            .and_then(|()| self.write(dev))
            .and_then(|()| Binding::add(dev, self, resumes))
            .inspect_err(|e| {
                dev_err!(
                    dev,
                    "DMA set-up failed ({e:?}): mask {:#x}, coherent mask {:#x}\n",
                    self.mask.value(),
                    self.coherent_mask.value()
                );
            })
    }

    fn check(&self, dev: &Device<Core<'_>>) -> Result {
        if self.mask.value() == 0 || self.coherent_mask.value() == 0 {
            return Err(EINVAL);
        }

        // Backends take the boundary for a power of two, and keep the aligned bits in a page.
        if self
            .segment_boundary
            .is_some_and(|m| m & m.wrapping_add(1) != 0)
        {
            return Err(EINVAL);
        }

        // CAST: Widening.
        if self
            .min_align_mask
            .is_some_and(|m| m & m.wrapping_add(1) != 0 || m as usize >= PAGE_SIZE)
        {
            return Err(EINVAL);
        }

        let limits = self.max_segment_size.is_some()
            || self.segment_boundary.is_some()
            || self.min_align_mask.is_some();

        // SAFETY: `dev` is a valid `struct device`; `dma_parms` is set by the bus before a driver
        // can bind and never changes afterwards.
        if limits && unsafe { (*dev.as_raw()).dma_parms.is_null() } {
            return Err(EINVAL);
        }

        Ok(())
    }

    fn write(&self, dev: &Device<Core<'_>>) -> Result {
        let raw = dev.as_raw();

        // SAFETY: `raw` is a valid `struct device`. The bus adapter calls this before `probe()`,
        // hence no driver code that could map or allocate has run since the device was bound, and
        // what earlier drivers mapped was unmapped before they were unbound.
        unsafe {
            to_result(bindings::dma_set_mask(raw, self.mask.value()))?;
            to_result(bindings::dma_set_coherent_mask(
                raw,
                self.coherent_mask.value(),
            ))?;
        }

        if let Some(bytes) = self.max_segment_size {
            // SAFETY: As above; `check()` saw that `dma_parms` is set.
            unsafe { bindings::dma_set_max_seg_size(raw, bytes) };
        }

        if let Some(mask) = self.segment_boundary {
            // SAFETY: As above; `check()` saw that `dma_parms` is set.
            unsafe { bindings::dma_set_seg_boundary(raw, mask) };
        }

        if let Some(mask) = self.min_align_mask {
            // SAFETY: As above; `check()` saw that `dma_parms` is set.
            unsafe { bindings::dma_set_min_align_mask(raw, mask) };
        }

        Ok(())
    }
}

/// A bound device whose DMA set-up is done: the permission to map.
///
/// One pointer wide; passed by value. It is valid until unbind, as the lifetime says.
///
/// # Invariants
///
/// The [`Setup`] that the driver asked for was applied to the device since it was bound, and stays
/// as it is until unbind.
///
/// # Examples
///
/// ```
/// # #![cfg(CONFIG_PCI)]
/// # use kernel::{device::Core, pci, prelude::*};
/// use kernel::dma;
///
/// fn probe(pdev: &pci::Device<Core<'_>>) -> Result {
///     let dma = dma::Configured::get(pdev.as_ref())?;
///
///     dev_info!(pdev, "largest mapping: {} bytes\n", dma.max_mapping_size());
///     Ok(())
/// }
/// ```
#[derive(Clone, Copy)]
pub struct Configured<'a>(&'a Device<Bound>);

impl<'a> Configured<'a> {
    /// Returns the proof that the driver of `dev` set up its DMA.
    ///
    /// Context: any. Walks the resource list of the device; call it in `probe()` and keep the
    /// result.
    ///
    /// # Errors
    ///
    /// [`EINVAL`] if the driver has no `dma_setup()`.
    pub fn get(dev: &'a Device<Bound>) -> Result<Self> {
        if Binding::find(dev).is_none() {
            dev_err!(
                dev,
                "the driver maps for DMA, but its dma_setup() says nothing\n"
            );
            return Err(EINVAL);
        }

        // INVARIANT: The binding was made by `Setup::apply()` since the device was bound. Changing
        // masks afterwards takes `unsafe` (`dma::Device::dma_set_mask()`), whose contract excludes
        // it for such a device.
        Ok(Self(dev))
    }

    /// Returns the device.
    #[inline]
    pub fn device(self) -> &'a Device<Bound> {
        self.0
    }

    /// Returns what is kept of the device.
    ///
    /// # Errors
    ///
    /// [`ENODEV`] when it is too late: the device is being unbound, and its resources are going.
    pub(super) fn binding(self) -> Result<&'a Binding> {
        Binding::find(self.0).ok_or(ENODEV)
    }

    /// Makes a place in which threads can wait for the device.
    ///
    /// To be made in `probe()`, one for each kind of event. Context: may sleep.
    ///
    /// # Errors
    ///
    /// [`ENOMEM`].
    pub fn new_waiters(self) -> Result<Arc<Waiters>> {
        self.binding()?.new_waiters()
    }

    #[inline]
    pub(super) fn as_raw(self) -> *mut bindings::device {
        self.0.as_raw()
    }

    /// Returns the bits that a bus address may have, as set up (C: `dma_get_mask()`).
    #[inline]
    pub fn mask(self) -> u64 {
        // SAFETY: `self.as_raw()` is a valid `struct device`.
        unsafe { bindings::dma_get_mask(self.as_raw()) }
    }

    /// Returns the largest size in bytes of one mapping (C: `dma_max_mapping_size()`).
    #[inline]
    pub fn max_mapping_size(self) -> usize {
        // SAFETY: `self.as_raw()` is a valid `struct device`.
        unsafe { bindings::dma_max_mapping_size(self.as_raw()) }
    }

    /// Returns the size in bytes up to which mapping is cheapest (C: `dma_opt_mapping_size()`).
    #[inline]
    pub fn opt_mapping_size(self) -> usize {
        // SAFETY: `self.as_raw()` is a valid `struct device`.
        unsafe { bindings::dma_opt_mapping_size(self.as_raw()) }
    }

    /// Returns whether there is memory that the device can't address, so that some mappings bounce
    /// (C: `dma_addressing_limited()`).
    #[inline]
    pub fn addressing_limited(self) -> bool {
        // SAFETY: `self.as_raw()` is a valid `struct device`.
        unsafe { bindings::dma_addressing_limited(self.as_raw()) }
    }

    /// Returns whether ownership changes of this device's mappings cost a sync just now
    /// (C: `dma_dev_need_sync()`).
    ///
    /// Never keep the answer: the first bounced mapping changes it.
    #[inline]
    pub fn need_sync(self) -> bool {
        // SAFETY: `self.as_raw()` is a valid `struct device`.
        unsafe { bindings::dma_dev_need_sync(self.as_raw()) }
    }

    /// Returns whether the hardware keeps the CPU's caches and the device's view alike.
    ///
    /// Only for choosing and reporting: drivers need not know, the ownership types do the syncs.
    #[inline]
    pub fn is_coherent(self) -> bool {
        // SAFETY: `self.as_raw()` is a valid `struct device`.
        unsafe { bindings::dev_is_dma_coherent(self.as_raw()) }
    }
}

/// Returns whether both are the same device, so that what is proven of one holds for the other.
#[inline]
pub(super) fn is_same(one: &Device, other: &Device) -> bool {
    core::ptr::eq(one.as_raw(), other.as_raw())
}
