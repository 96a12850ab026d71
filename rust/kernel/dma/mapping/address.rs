// SPDX-License-Identifier: GPL-2.0

//! Bus addresses that can't outlive the mapping they belong to.

use super::{
    super::DmaAddress,
    running::Running, //
};
use crate::prelude::*;
use core::{
    marker::PhantomData,
    ops::Range, //
};

/// Returns the bus address that is `offset` bytes into a mapping at `addr`.
///
/// `offset` may be the length of the mapping, for an empty range at its end. The address of that
/// end wraps to 0 where bus addresses have 32 bits and the mapping ends at 4 GiB, so overflow is
/// no error here.
#[inline]
pub(in crate::dma) const fn within(addr: DmaAddress, offset: usize) -> DmaAddress {
    // CAST: An offset into a mapping fits into a bus address; that of its end wraps.
    addr.wrapping_add(offset as DmaAddress)
}

/// The bus address of a region of mapped memory, to be written to a device.
///
/// It borrows the value that keeps the memory mapped, such as a [`Streaming`](super::Streaming), so
/// that it can't be used after an unmap. C: `dma_addr_t`, with a length.
///
/// There is no way from an integer to a `DmaAddr`. The way to an integer is
/// [`to_bits`](Self::to_bits), which is `unsafe`: from then on the device may access the region,
/// and the caller vouches that this ends before the memory is freed. It takes the proof that the
/// device [runs](Running): a device that is stopped, or not started yet, is shown nothing. A driver
/// calls it where it programs the hardware: in its `Engine`, `RingRegisters`, `CompletionQueue` or
/// `Submission`.
///
/// # Invariants
///
/// The device can access `len` bytes from `addr` on for as long as `'a`.
///
/// # Examples
///
/// ```
/// # use kernel::{dma::{DmaAddr, Streaming, ToDevice}, prelude::*};
/// fn second_half<'a>(s: &'a Streaming<'_, KVec<u8>, ToDevice>) -> Result<DmaAddr<'a>> {
///     let whole = s.address();
///
///     whole.slice(whole.len() / 2..whole.len())
/// }
/// ```
#[derive(Clone, Copy)]
pub struct DmaAddr<'a> {
    addr: DmaAddress,
    len: usize,
    _borrow: PhantomData<&'a ()>,
}

impl<'a> DmaAddr<'a> {
    /// Makes the address of a region.
    ///
    /// # Safety
    ///
    /// `len` bytes from `addr` on must be mapped for the device for as long as `'a`.
    #[inline]
    pub(in crate::dma) unsafe fn new(addr: DmaAddress, len: usize) -> Self {
        // INVARIANT: By the safety requirement the region is mapped for `'a`.
        Self {
            addr,
            len,
            _borrow: PhantomData,
        }
    }

    /// Returns the length in bytes of the region.
    #[inline]
    #[expect(clippy::len_without_is_empty, reason = "a region is never empty")]
    pub fn len(self) -> usize {
        self.len
    }

    /// Returns the part of the region from byte `n` on.
    ///
    /// # Errors
    ///
    /// [`EINVAL`] if `n` isn't less than the length.
    #[inline]
    pub fn offset(self, n: usize) -> Result<Self> {
        self.slice(n..self.len)
    }

    /// Returns the part of the region that begins and ends at these bytes.
    ///
    /// # Errors
    ///
    /// [`EINVAL`] if the part is empty or not inside the region.
    #[inline]
    pub fn slice(self, range: Range<usize>) -> Result<Self> {
        if range.start >= range.end || range.end > self.len {
            return Err(EINVAL);
        }

        // INVARIANT: The part lies inside a region that is valid for `'a`.
        Ok(Self {
            addr: within(self.addr, range.start),
            len: range.end - range.start,
            _borrow: PhantomData,
        })
    }

    /// Returns the bus address as a number, to be written to a register of the device, or to memory
    /// where it looks.
    ///
    /// Context: any.
    ///
    /// # Safety
    ///
    /// 1. `running` must be that of the device for which the memory is mapped.
    /// 2. If the device is told to access the region, it must access nothing beyond it, and only in
    ///    the direction of the mapping.
    /// 3. It must stop doing so when it reports completion to the protocol that owns the memory, or
    ///    when it is stopped, whichever comes first.
    #[inline]
    pub unsafe fn to_bits(self, running: &Running<'_>) -> DmaAddress {
        let _ = running;

        self.addr
    }

    /// Returns the bus address as a number, for a descriptor that the device doesn't look at yet.
    ///
    /// The protocol that tells it to look holds a [`Running`] then.
    #[inline]
    pub(in crate::dma) fn bits(self) -> DmaAddress {
        self.addr
    }
}
