// SPDX-License-Identifier: GPL-2.0

//! Bus addresses that can't outlive what keeps them valid.

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
/// The end of a mapping needs no address: where bus addresses have 32 bits, and the mapping is the
/// last one below 4 GiB, there is none, and this returns 0. So don't compute it with a check.
#[inline]
pub(in crate::dma) const fn within(addr: DmaAddress, offset: usize) -> DmaAddress {
    // CAST: An offset into a mapping fits into a bus address; that of its end wraps.
    addr.wrapping_add(offset as DmaAddress)
}

/// The bus address of a region of mapped memory, borrowed from the value that keeps it mapped.
///
/// There is no way from an integer to a `DmaAddr`, and turning one into bits is `unsafe`: that is
/// the moment at which a device learns an address, and the caller says why the device will be done
/// with it in time. It takes a device that [runs](Running): one that is stopped, or not started
/// yet, learns nothing. Protocols such as transfers do it once for all drivers.
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
    /// Creates an address.
    ///
    /// # Safety
    ///
    /// `len` bytes from `addr` on must be mapped for the device for as long as `'a`.
    #[inline]
    pub(in crate::dma) unsafe fn new(addr: DmaAddress, len: usize) -> Self {
        // INVARIANT: By the safety requirements.
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

    /// Returns what is left of the region from byte `n` on.
    ///
    /// # Errors
    ///
    /// [`EINVAL`] if nothing is left.
    #[inline]
    pub fn offset(self, n: usize) -> Result<Self> {
        self.slice(n..self.len)
    }

    /// Returns a part of the region.
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

    /// Returns the number to be written into a register or a descriptor of the device, while it
    /// runs.
    ///
    /// # Safety
    ///
    /// - `running` must be about the device that the memory is mapped for.
    /// - The caller must see to it that the device accesses the region only while it is mapped and
    ///   owned by the device; or until it is stopped.
    #[inline]
    pub unsafe fn to_bits(self, running: &Running<'_>) -> DmaAddress {
        let _ = running;

        self.addr
    }

    /// Returns the number, for a descriptor that the device doesn't look at before it is told.
    #[inline]
    pub(in crate::dma) fn bits(self) -> DmaAddress {
        self.addr
    }
}
