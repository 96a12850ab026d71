// SPDX-License-Identifier: GPL-2.0

//! Which memory a device can address.
//!
//! A driver says so once, before its `probe()` runs, and the bus adapter applies it. So no mask can
//! change while a mapping lives.
//!
//! C header: [`include/linux/dma-mapping.h`](srctree/include/linux/dma-mapping.h)

use super::{
    super::{
        DmaAddress,
        DmaMask, //
    },
    record::Record, //
};
use crate::{
    bindings,
    device::{
        Core,
        Device, //
    },
    error::to_result,
    page::PAGE_SIZE,
    prelude::*, //
};

/// No backend has a lower limit, so it is only asked for its own if there is more to map. The
/// lowest is that of bounce buffers: `IO_TLB_SIZE * IO_TLB_SEGSIZE`, which is 256 KiB, less an
/// alignment of up to a page.
pub(super) const ALWAYS_MAPPABLE: usize = 128 << 10;

const _: () = assert!(
    PAGE_SIZE <= ALWAYS_MAPPABLE,
    "that alignment is at most half of it"
);

/// The limits that no driver has set: see `dma_get_max_seg_size()`, and `pci_device_add()`, which
/// sets the boundary.
const DEFAULT_SEGMENT: u32 = 64 << 10;
const DEFAULT_BOUNDARY: usize = u32::MAX as usize;

/// Which memory a device can address: address bits, and the size, boundary and alignment of a
/// piece.
///
/// Take them from the data sheet. They hold for everything that is mapped or allocated for the
/// device: streaming buffers, blocks of a `Pool`, rings. The kernel picks memory
/// that suits the masks, by bouncing if need be. It doesn't move a buffer to suit the other limits:
/// a mapping that breaks one of those is refused with an error. A limit that isn't given is not
/// checked. For lists the kernel then keeps to limits of its own: a segment has at most 64 KiB, and
/// doesn't cross a multiple of 4 GiB.
///
/// A driver returns them from `dma_constraints()` of its bus's `DmaDriver`, which the bus calls
/// before `probe()`. There is no 64-then-32 ladder: masks of 32 bits and more never fail, a smaller
/// one fails only where the platform really can't serve it.
///
/// # Examples
///
/// ```
/// use kernel::dma::{DmaMask, Constraints};
///
/// const CONSTRAINTS: Constraints = Constraints::new(DmaMask::new::<64>())
///     .coherent_mask(DmaMask::new::<32>())
///     .max_segment_size(64 * 1024);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Constraints {
    mask: DmaMask,
    coherent_mask: DmaMask,
    max_segment_size: Option<u32>,
    segment_boundary: Option<usize>,
    min_align_mask: Option<u32>,
    alignment: u32,
}

impl Constraints {
    /// Makes constraints from the address bits that the device can drive, for streaming mappings
    /// and coherent memory alike (C: `dma_set_mask_and_coherent()`).
    #[inline]
    pub const fn new(mask: DmaMask) -> Self {
        Self {
            mask,
            coherent_mask: mask,
            max_segment_size: None,
            segment_boundary: None,
            min_align_mask: None,
            alignment: 1,
        }
    }

    /// Sets another mask for coherent memory, for a device whose rings or descriptors have fewer
    /// address bits than its buffers (C: `dma_set_coherent_mask()`).
    #[inline]
    pub const fn coherent_mask(mut self, mask: DmaMask) -> Self {
        self.coherent_mask = mask;
        self
    }

    /// Sets the longest piece of memory, in bytes, that the device can be told about at once
    /// (C: `dma_set_max_seg_size()`). Longer buffers are refused with [`EOVERFLOW`]. Not 0.
    #[inline]
    pub const fn max_segment_size(mut self, bytes: u32) -> Self {
        self.max_segment_size = Some(bytes);
        self
    }

    /// Sets the boundary that no piece of memory may cross, as a power of two less one: `0xffff`
    /// for multiples of 64 KiB (C: `dma_set_seg_boundary()`). Buffers that cross it are refused
    /// with [`EINVAL`].
    #[inline]
    pub const fn segment_boundary(mut self, mask: usize) -> Self {
        self.segment_boundary = Some(mask);
        self
    }

    /// Sets which low address bits a bounce buffer must share with the buffer: `0xfff` for a device
    /// that derives an offset in a page of 4 KiB from the bus address
    /// (C: `dma_set_min_align_mask()`). A power of two less one, and less than a page.
    #[inline]
    pub const fn min_align_mask(mut self, mask: u32) -> Self {
        self.min_align_mask = Some(mask);
        self
    }

    /// Sets the power of two of which each bus address must be a multiple, in bytes. Buffers at
    /// other addresses are refused with [`EINVAL`]. C has no counterpart: its drivers align buffers
    /// by hand.
    #[inline]
    pub const fn alignment(mut self, bytes: u32) -> Self {
        self.alignment = bytes;
        self
    }

    /// Returns the mask for streaming mappings.
    #[cfg(all(CONFIG_RUST_DMA_SIM, CONFIG_RUST_DMA_KUNIT_TEST))]
    pub(in crate::dma) const fn streaming_mask(&self) -> DmaMask {
        self.mask
    }

    /// Returns the length in bytes up to which a mapping meets the constraints at any address: such
    /// a mapping is *plain*, and needs no check. 0 if the address always matters.
    pub(super) fn plain_len(&self) -> usize {
        if self.segment_boundary.is_some() || self.alignment > 1 {
            return 0;
        }

        // CAST: Widening.
        self.max_segment_size
            .map_or(ALWAYS_MAPPABLE, |max| ALWAYS_MAPPABLE.min(max as usize))
    }

    /// Checks the length of a piece of memory that is longer than [`plain_len`](Self::plain_len).
    ///
    /// # Errors
    ///
    /// - [`EOVERFLOW`] if it is longer than [`max_segment_size`](Self::max_segment_size);
    /// - [`EINVAL`] if it is so long that it crosses the boundary at any address.
    pub(super) fn admit_len(&self, len: usize) -> Result {
        // CAST: Widening.
        if self.max_segment_size.is_some_and(|max| len > max as usize) {
            return Err(EOVERFLOW);
        }

        if self
            .segment_boundary
            .is_some_and(|mask| len.saturating_sub(1) > mask)
        {
            return Err(EINVAL);
        }

        Ok(())
    }

    /// Checks the bus address and the length of a piece of memory that is longer than
    /// [`plain_len`](Self::plain_len).
    ///
    /// # Errors
    ///
    /// As [`admit_len`](Self::admit_len), and [`EINVAL`] if it crosses the boundary where it lies,
    /// or isn't aligned.
    pub(in crate::dma) fn admit(&self, addr: DmaAddress, len: usize) -> Result {
        self.admit_len(len)?;

        #[allow(clippy::useless_conversion, reason = "bus addresses may have 32 bits")]
        let addr = u64::from(addr);
        // CAST: Widening.
        let last = addr.wrapping_add(len.saturating_sub(1) as u64);

        // CAST: Widening.
        if self
            .segment_boundary
            .is_some_and(|mask| addr & !(mask as u64) != last & !(mask as u64))
        {
            return Err(EINVAL);
        }

        if addr & u64::from(self.alignment - 1) != 0 {
            return Err(EINVAL);
        }

        Ok(())
    }

    /// Checks the memory of a table, such as a ring. Its length isn't a segment's, so the longest
    /// segment doesn't matter.
    ///
    /// # Errors
    ///
    /// [`EINVAL`] if it crosses the boundary, or isn't aligned.
    pub(in crate::dma) fn admit_table(&self, addr: DmaAddress, len: usize) -> Result {
        Self {
            max_segment_size: None,
            ..*self
        }
        .admit(addr, len)
    }

    /// Returns the power of two of which each bus address must be a multiple, in bytes.
    pub(super) fn least_alignment(&self) -> usize {
        // CAST: Widening.
        self.alignment as usize
    }

    /// Returns how to make a pool of blocks of `len` bytes all of which meet the constraints: at
    /// which alignment, and without crossing which boundary, unless that is 0. They are at least as
    /// strict as those that are given.
    ///
    /// # Errors
    ///
    /// As [`admit_len`](Self::admit_len), and [`EINVAL`] for an alignment of more than a page,
    /// which pools don't have.
    pub(super) fn admit_blocks(
        &self,
        len: usize,
        align: usize,
        boundary: usize,
    ) -> Result<(usize, usize)> {
        self.admit_len(len)?;

        // CAST: Widening.
        let align = align.max(self.alignment as usize);

        if align > PAGE_SIZE {
            return Err(EINVAL);
        }

        // A mask of all ones is no boundary.
        let ours = self.segment_boundary.map_or(0, |mask| mask.wrapping_add(1));

        Ok((
            align,
            match (boundary, ours) {
                (0, only) | (only, 0) => only,
                (one, other) => one.min(other),
            },
        ))
    }

    /// Returns whether a device may be used under these constraints, if its hardware takes what
    /// `hardware` says, and no more.
    pub(in crate::dma) fn are_within(&self, hardware: &Self) -> bool {
        fn at_most<T: PartialOrd>(ours: Option<T>, theirs: Option<T>) -> bool {
            match (ours, theirs) {
                (_, None) => true,
                (Some(ours), Some(theirs)) => ours <= theirs,
                (None, Some(_)) => false,
            }
        }

        self.mask.value() <= hardware.mask.value()
            && self.coherent_mask.value() <= hardware.coherent_mask.value()
            && at_most(self.max_segment_size, hardware.max_segment_size)
            && at_most(self.segment_boundary, hardware.segment_boundary)
            && self.min_align_mask.unwrap_or(0) >= hardware.min_align_mask.unwrap_or(0)
            && self.alignment >= hardware.alignment
    }

    /// Applies the constraints to a device that is about to be probed.
    ///
    /// Called by the bus adapters, before `probe()`. They hold until unbind.
    ///
    /// # Errors
    ///
    /// - [`EINVAL`] for a mask of zero bits, a longest segment of zero bytes, an alignment that
    ///   isn't a power of two, a boundary or an alignment mask that isn't a power of two less one,
    ///   and for one of the three limits that C keeps in `dev->dma_parms` on a bus that has none.
    /// - [`EIO`] if the platform can't serve the mask.
    /// - [`EBUSY`] if the device has other constraints since it was bound.
    /// - [`ENOSPC`] if the device, under earlier drivers, has leaked too much memory.
    /// - [`ENOMEM`].
    pub(crate) fn apply(self, dev: &Device<Core<'_>>) -> Result {
        if let Some(record) = Record::find(dev) {
            return if *record.constraints() == self {
                Ok(())
            } else {
                Err(EBUSY)
            };
        }

        #[cfg(CONFIG_RUST_DMA_DEBUG)]
        super::leaks::check(dev)?;

        self.check(dev)
            .and_then(|()| self.write(dev))
            .and_then(|()| Record::add(dev, self))
            .inspect_err(|e| {
                dev_err!(
                    dev,
                    "DMA constraints refused ({e:?}): mask {:#x}, coherent mask {:#x}\n",
                    self.mask.value(),
                    self.coherent_mask.value()
                );
            })
    }

    fn check(&self, dev: &Device<Core<'_>>) -> Result {
        if self.mask.value() == 0 || self.coherent_mask.value() == 0 {
            return Err(EINVAL);
        }

        // The C side takes the boundary to be a power of two less one, and the bits that a bounce
        // buffer keeps to be an offset in a page.
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

        if !self.alignment.is_power_of_two() || self.max_segment_size == Some(0) {
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

        // SAFETY: As above; `dma_parms` never changes.
        if unsafe { (*raw).dma_parms.is_null() } {
            // `check()` saw that there are no limits.
            return Ok(());
        }

        // What isn't given must not be what an earlier driver has left.
        //
        // SAFETY: As above; `dma_parms` is set.
        unsafe {
            bindings::dma_set_max_seg_size(raw, self.max_segment_size.unwrap_or(DEFAULT_SEGMENT));
            bindings::dma_set_seg_boundary(raw, self.segment_boundary.unwrap_or(DEFAULT_BOUNDARY));
            bindings::dma_set_min_align_mask(raw, self.min_align_mask.unwrap_or(0));
        }

        Ok(())
    }
}
