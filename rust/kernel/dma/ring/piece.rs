// SPDX-License-Identifier: GPL-2.0

//! What a descriptor names: owned memory that can be put into a slot.

use super::super::{
    streaming,
    Buffer,
    Configured,
    Direction,
    DmaAddress,
    MapAttrs, //
};
use crate::prelude::*;

mod private {
    use super::*;

    /// Memory that can lie in a slot while the device accesses it.
    ///
    /// # Safety
    ///
    /// - After [`map`](Self::map) returned an address, the device can access [`len`](Self::len) bytes
    ///   there, in the direction `D`, and until [`unmap`](Self::unmap) nothing but the methods of
    ///   this trait is needed to keep it so. The value may be moved.
    /// - As long as it is mapped, `len` and [`as_ptr`](Self::as_ptr) don't access the memory, and
    ///   return the same each time; there are `len` initialised bytes.
    pub unsafe trait Held<'a, D: Direction>: Send + Sized {
        /// Lets the device access the memory, which is its own from here on. What the CPU wrote, it
        /// sees.
        fn map(&mut self, dma: Configured<'a>) -> Result<DmaAddress>;

        /// # Safety
        ///
        /// It must be mapped for `dma`, at `addr`, and the device be done with it.
        unsafe fn unmap(&mut self, dma: Configured<'a>, addr: DmaAddress);

        /// Lets the CPU see what the device wrote to the first `len` bytes.
        ///
        /// # Safety
        ///
        /// As [`unmap`](Self::unmap); `len` must not be over `self.len()`.
        unsafe fn sync_for_cpu(&mut self, dma: Configured<'a>, addr: DmaAddress, len: usize);

        /// Gives memory that the CPU only read back to the device.
        fn hand_over(&mut self);

        fn len(&self) -> usize;

        fn as_ptr(&self) -> *const u8;
    }
}
pub(super) use private::Held;

/// What can be posted: a [`Buffer`], which is mapped when it is posted and unmapped when it is
/// taken.
pub trait Piece<'a, D: Direction>: private::Held<'a, D> {}

impl<'a, D: Direction, T: private::Held<'a, D>> Piece<'a, D> for T {}

// SAFETY: By the contract of `Buffer`, and of mapping.
unsafe impl<'a, D: Direction, B: Buffer> Held<'a, D> for B {
    #[inline]
    fn map(&mut self, dma: Configured<'a>) -> Result<DmaAddress> {
        streaming::map::<B, D>(dma, self, MapAttrs::NONE)
    }

    #[inline]
    unsafe fn unmap(&mut self, dma: Configured<'a>, addr: DmaAddress) {
        // Nobody wrote but the device, if that, so the CPU may be given its view of all of it.
        //
        // SAFETY: By the safety requirements.
        unsafe { streaming::unmap::<D>(dma, addr, Buffer::len(self), MapAttrs::NONE) };
        streaming::hand_over(Buffer::as_mut_ptr(self));
    }

    #[inline]
    unsafe fn sync_for_cpu(&mut self, dma: Configured<'a>, addr: DmaAddress, len: usize) {
        // SAFETY: By the safety requirements.
        unsafe { streaming::sync_for_cpu::<D>(dma, addr, len) };
        streaming::hand_over(Buffer::as_mut_ptr(self));
    }

    #[inline]
    fn hand_over(&mut self) {
        streaming::hand_over(Buffer::as_mut_ptr(self));
    }

    #[inline]
    fn len(&self) -> usize {
        Buffer::len(self)
    }

    #[inline]
    fn as_ptr(&self) -> *const u8 {
        Buffer::as_ptr(self)
    }
}
