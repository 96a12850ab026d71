// SPDX-License-Identifier: GPL-2.0

//! Physically contiguous pages.
//!
//! C header: [`include/linux/gfp.h`](srctree/include/linux/gfp.h)

use crate::{
    alloc::{
        AllocError,
        Flags, //
    },
    bindings,
    page::PAGE_SIZE,
    prelude::*, //
};
use core::{
    ops::{
        Deref,
        DerefMut, //
    },
    ptr::NonNull, //
};

/// A buffer of whole pages: physically contiguous, in the linear map, a power of two of them.
///
/// Use it for large buffers, and where a buffer must not share a cache line with anything else. Its
/// physical address is a multiple of its size.
///
/// # Invariants
///
/// `ptr` is an allocation of `PAGE_SIZE << order` initialised bytes that came from the page
/// allocator, and that this value owns.
///
/// # Examples
///
/// ```
/// use kernel::{dma::Pages, page::PAGE_SIZE};
///
/// let mut pages = Pages::zeroed(1, GFP_KERNEL)?;
///
/// assert_eq!(pages.len(), 2 * PAGE_SIZE);
/// pages.fill(0x5a);
/// # Ok::<(), Error>(())
/// ```
pub struct Pages {
    ptr: NonNull<u8>,
    order: u32,
}

// SAFETY: `Pages` owns plain bytes.
unsafe impl Send for Pages {}

// SAFETY: A shared reference only reads.
unsafe impl Sync for Pages {}

impl Pages {
    /// Allocates `1 << order` pages filled with zeros (C: `__get_free_pages()`).
    ///
    /// Context: as `flags` say.
    ///
    /// # Errors
    ///
    /// [`AllocError`] if there is no such block, or if `order` is more than the page allocator
    /// serves.
    pub fn zeroed(order: u32, flags: Flags) -> Result<Self, AllocError> {
        if order > bindings::MAX_PAGE_ORDER {
            return Err(AllocError);
        }

        // A page of high memory would have no address in the linear map.
        let flags = (flags | __GFP_ZERO) & !__GFP_HIGHMEM;

        // SAFETY: The order is one that the page allocator takes: it was checked above.
        let addr = unsafe { bindings::get_free_pages_noprof(flags.as_raw(), order) };

        // CAST: The C side returns the address as an `unsigned long`.
        let ptr = NonNull::new(addr as *mut u8).ok_or(AllocError)?;

        // INVARIANT: The allocation succeeded, and `__GFP_ZERO` initialised it.
        Ok(Self { ptr, order })
    }

    /// Returns the number of bytes, without looking at them.
    #[inline]
    pub(in crate::dma) fn size(&self) -> usize {
        PAGE_SIZE << self.order
    }
}

impl Deref for Pages {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        // SAFETY: By the type invariants there are so many initialised bytes; `&self` excludes
        // writers.
        unsafe { core::slice::from_raw_parts(self.ptr.as_ptr(), self.size()) }
    }
}

impl DerefMut for Pages {
    #[inline]
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: By the type invariants there are so many initialised bytes; `&mut self` excludes
        // other accesses.
        unsafe { core::slice::from_raw_parts_mut(self.ptr.as_ptr(), self.size()) }
    }
}

impl Drop for Pages {
    #[inline]
    fn drop(&mut self) {
        // CAST: The C side takes the address as an `unsigned long`.
        // SAFETY: By the type invariants, this came from `get_free_pages()` with that order.
        unsafe { bindings::free_pages(self.ptr.as_ptr() as c_ulong, self.order) };
    }
}
