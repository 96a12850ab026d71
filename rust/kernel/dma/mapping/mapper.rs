// SPDX-License-Identifier: GPL-2.0

//! The permission to map.
//!
//! C header: [`include/linux/dma-mapping.h`](srctree/include/linux/dma-mapping.h)

use super::{
    record::Record,
    running::Running, //
};
use crate::{
    alloc::NumaNode,
    bindings,
    device::{
        Bound,
        Device, //
    },
    prelude::*, //
};

/// The permission to map for a device: it is bound, and its [`Constraints`](super::Constraints)
/// were applied.
///
/// Every call that maps takes a `Mapper`, as C's take a `struct device *`. So nothing can be mapped
/// for a device whose mask was never set, or after it was unbound. Get one in `probe()`.
///
/// Two pointers wide; passed by value. It is valid until unbind, as the lifetime says.
///
/// # Invariants
///
/// `record` is what is known of `dev`. Its constraints were applied to the device since it was
/// bound, and stay as they are until unbind.
///
/// # Examples
///
/// ```
/// # use kernel::{device::{Core, Device}, prelude::*};
/// use kernel::dma;
///
/// fn probe(dev: &Device<Core<'_>>) -> Result {
///     let dma = dma::Mapper::get(dev)?;
///
///     dev_info!(dev, "largest mapping: {} bytes\n", dma.max_mapping_size());
///     Ok(())
/// }
/// ```
#[derive(Clone, Copy)]
pub struct Mapper<'a> {
    dev: &'a Device<Bound>,
    record: &'a Record,
}

impl<'a> Mapper<'a> {
    /// Returns the permission to map for `dev`, if its driver has constraints.
    ///
    /// This walks the resource list of the device, so call it once, in `probe()`, and keep the
    /// result. Context: any.
    ///
    /// # Errors
    ///
    /// [`EINVAL`] if the driver is no `DmaDriver` of its bus.
    pub fn get(dev: &'a Device<Bound>) -> Result<Self> {
        let Some(record) = Record::find(dev) else {
            dev_err!(
                dev,
                "the driver maps for DMA, but is no DmaDriver: nothing was set up\n"
            );
            return Err(EINVAL);
        };

        // INVARIANT: `Constraints::apply()` has made the record since the device was bound.
        // Changing masks afterwards takes `unsafe` (`dma::Device::dma_set_mask()`), whose contract
        // excludes it for such a device.
        Ok(Self { dev, record })
    }

    /// Makes the permission to map for a device that has no record of its own, for somebody else
    /// than its driver.
    ///
    /// # Safety
    ///
    /// - The device must be one that can do DMA, with the masks of the constraints of `record`, for
    ///   as long as `'a`.
    /// - Whoever shows the device an address that was mapped with the result must keep to `record`.
    #[cfg(CONFIG_DMA_ENGINE)]
    pub(in crate::dma) unsafe fn with_record(dev: &'a Device<Bound>, record: &'a Record) -> Self {
        // INVARIANT: By the safety requirements, which stand for what a driver of ours does.
        Self { dev, record }
    }

    /// Returns whether it has that record, so that what the record says holds for what is mapped.
    #[cfg(CONFIG_DMA_ENGINE)]
    pub(in crate::dma) fn has_record(self, record: &Record) -> bool {
        core::ptr::eq(self.record, record)
    }

    /// Returns the device, for messages.
    ///
    /// It may be that of another driver: the mapper of a channel of a DMA engine is for the engine.
    /// So it isn't lent as one that is bound, to which a driver could add resources.
    #[inline]
    pub fn device(self) -> &'a Device {
        self.dev
    }

    /// Returns the device, which is bound.
    #[inline]
    pub(in crate::dma) fn bound(self) -> &'a Device<Bound> {
        self.dev
    }

    /// Returns the record of the device.
    #[inline]
    pub(in crate::dma) fn record(self) -> &'a Record {
        self.record
    }

    /// Keeps the device from being stopped until the result is dropped, so that it can be shown an
    /// address ([`DmaAddr::to_bits`](super::DmaAddr::to_bits)).
    ///
    /// For a protocol of the driver's own: transfers, rings and queues call this by themselves.
    /// Context: any. The caller must not sleep until it drops the result.
    ///
    /// # Errors
    ///
    /// [`ESHUTDOWN`] if the device is stopped, or wasn't started yet.
    #[inline]
    pub fn running(self) -> Result<Running<'a>> {
        Running::enter(self.record)
    }

    #[inline]
    pub(in crate::dma) fn as_raw(self) -> *mut bindings::device {
        self.dev.as_raw()
    }

    /// Returns the mask of the bits that a bus address may have (C: `dma_get_mask()`).
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

    /// Returns the largest size in bytes of one mapping that is cheap, which is not more than
    /// [`max_mapping_size`](Self::max_mapping_size) (C: `dma_opt_mapping_size()`).
    ///
    /// An IOMMU may have a cache of addresses for mappings of up to that size. Use it to choose the
    /// size of buffers that are mapped and unmapped all the time.
    #[inline]
    pub fn opt_mapping_size(self) -> usize {
        // SAFETY: `self.as_raw()` is a valid `struct device`.
        unsafe { bindings::dma_opt_mapping_size(self.as_raw()) }
    }

    /// Returns a mask of the bits that a bus address must have to reach all of the machine's memory
    /// without help (C: `dma_get_required_mask()`).
    ///
    /// A device whose descriptors have a short form may use that if this is less than its
    /// [`mask`](Self::mask).
    #[inline]
    pub fn required_mask(self) -> u64 {
        // SAFETY: `self.as_raw()` is a valid `struct device`.
        unsafe { bindings::dma_get_required_mask(self.as_raw()) }
    }

    /// Returns whether the device can't address all memory, so that the kernel may have to bounce
    /// (C: `dma_addressing_limited()`).
    ///
    /// Use it to choose where buffers lie: coherent memory is always where the device reaches it.
    #[inline]
    pub fn is_addressing_limited(self) -> bool {
        // SAFETY: `self.as_raw()` is a valid `struct device`.
        unsafe { bindings::dma_addressing_limited(self.as_raw()) }
    }

    /// Returns in which units an IOMMU joins pieces of memory, as a power of two less one, or
    /// [`None`] if there is none that does so (C: `dma_get_merge_boundary()`).
    ///
    /// If all pieces of a list but the first begin at such units, and all but the last end there,
    /// the device sees one piece.
    #[inline]
    pub fn merge_boundary(self) -> Option<usize> {
        // SAFETY: `self.as_raw()` is a valid `struct device`.
        let mask = unsafe { bindings::dma_get_merge_boundary(self.as_raw()) };

        // CAST: Both have the size of a pointer.
        (mask != 0).then_some(mask as usize)
    }

    /// Returns whether moving a buffer between the CPU and the device may cost a copy, or a flush
    /// of caches (C: `dma_dev_need_sync()`).
    ///
    /// The ownership types do the syncs in any case. Use this to choose between copying a small
    /// buffer and mapping it.
    #[inline]
    pub fn needs_sync(self) -> bool {
        // SAFETY: `self.as_raw()` is a valid `struct device`.
        unsafe { bindings::dma_dev_need_sync(self.as_raw()) }
    }

    /// Returns the size of a cache line, as far as DMA is concerned: buffers that a device writes
    /// should begin and end at multiples of it (C: `dma_get_cache_alignment()`).
    #[inline]
    pub fn cache_alignment() -> usize {
        // SAFETY: The function has no requirements.
        // CAST: A small number.
        unsafe { bindings::dma_get_cache_alignment() as usize }
    }

    /// Returns the NUMA node that the device is near, or
    /// [`NO_NODE`](crate::alloc::NumaNode::NO_NODE) if all are alike (C: `dev_to_node()`).
    ///
    /// The kernel allocates coherent memory and pools there by itself, if it can. Use this for
    /// memory that the driver allocates on its own.
    #[inline]
    pub fn node(self) -> NumaNode {
        // SAFETY: `self.as_raw()` is a valid `struct device`.
        let node = unsafe { bindings::dev_to_node(self.as_raw()) };

        NumaNode::new(node).unwrap_or(NumaNode::NO_NODE)
    }

    /// Returns whether the hardware keeps the CPU's caches and the device's view alike.
    ///
    /// Drivers need not know: the ownership types do the syncs.
    #[inline]
    pub(in crate::dma) fn is_coherent(self) -> bool {
        // SAFETY: `self.as_raw()` is a valid `struct device`.
        unsafe { bindings::dev_is_dma_coherent(self.as_raw()) }
    }
}

/// Returns whether both are the same device, so that a proof about one holds for the other.
#[inline]
pub(in crate::dma) fn is_same(one: &Device, other: &Device) -> bool {
    core::ptr::eq(one.as_raw(), other.as_raw())
}
