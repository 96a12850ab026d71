// SPDX-License-Identifier: GPL-2.0

//! Pages that several owners have.

use super::{
    Piece,
    Scatter, //
};
use crate::{
    alloc::Flags,
    bindings,
    page::PAGE_SIZE,
    prelude::*, //
};
use core::ptr::NonNull;

/// Pages that several owners have at the same time. Each page has a reference count.
///
/// Use them for data that goes to more than one place: to two devices, or to a device again while
/// the first transfer may still be under way. Each owner maps a value of its own, made by
/// [`try_clone`](Self::try_clone), which copies nothing. A page is freed with its last owner.
///
/// Nobody can have a reference to the bytes, since another owner may have given them to a device.
/// [`read`](Self::read) and [`write`](Self::write) copy them, byte by byte. What they copy while
/// somebody else writes is a mixture of old and new bytes.
///
/// # Invariants
///
/// Each pointer is that of a page of the linear map, which is initialised, and to which this value
/// has a reference.
///
/// # Examples
///
/// ```
/// use kernel::dma::SharedPages;
///
/// let pages = SharedPages::zeroed(2, GFP_KERNEL)?;
/// let same = pages.try_clone(GFP_KERNEL)?;
/// let mut bytes = [0; 5];
///
/// pages.write(4094, b"hello")?;
/// same.read(4094, &mut bytes)?;
/// assert_eq!(&bytes, b"hello");
/// # Ok::<(), Error>(())
/// ```
pub struct SharedPages {
    pages: KVec<NonNull<u8>>,
}

// SAFETY: The reference counts are atomic, and the bytes are accessed as memory that others access.
unsafe impl Send for SharedPages {}

// SAFETY: As above.
unsafe impl Sync for SharedPages {}

impl SharedPages {
    /// Allocates `count` pages filled with zeros (C: `get_zeroed_page()`).
    ///
    /// Context: as `flags` say.
    ///
    /// # Errors
    ///
    /// [`ENOMEM`].
    pub fn zeroed(count: usize, flags: Flags) -> Result<Self> {
        let mut this = Self {
            pages: KVec::with_capacity(count, flags)?,
        };
        // A page of high memory would have no address in the linear map.
        let page_flags = (flags | __GFP_ZERO) & !__GFP_HIGHMEM;

        for _ in 0..count {
            // SAFETY: The page allocator takes this order.
            let addr = unsafe { bindings::get_free_pages_noprof(page_flags.as_raw(), 0) };

            // CAST: The C side returns the address as an `unsigned long`.
            let page = NonNull::new(addr as *mut u8).ok_or(ENOMEM)?;

            // INVARIANT: The allocation succeeded, with one reference, and `__GFP_ZERO` initialised
            // the page. There is room: the capacity is `count`.
            this.pages.push(page, flags)?;
        }

        Ok(this)
    }

    /// Makes another owner of the same pages (C: `try_get_page()`).
    ///
    /// Context: as `flags` say.
    ///
    /// # Errors
    ///
    /// - [`ENOMEM`];
    /// - [`EOVERFLOW`] if a page has too many owners to be counted, which takes values that were
    ///   forgotten.
    pub fn try_clone(&self, flags: Flags) -> Result<Self> {
        let mut this = Self {
            pages: KVec::with_capacity(self.pages.len(), flags)?,
        };

        for &page in &self.pages {
            // SAFETY: By the type invariants this is a page to which `self` has a reference.
            if !unsafe { bindings::dma_get_page(page.as_ptr().cast()) } {
                return Err(EOVERFLOW);
            }

            // INVARIANT: The reference was just taken. There is room: the capacity suffices.
            this.pages.push(page, flags)?;
        }

        Ok(this)
    }

    /// Returns the number of bytes.
    #[inline]
    pub fn len(&self) -> usize {
        self.pages.len() * PAGE_SIZE
    }

    /// Returns whether there are no pages.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.pages.is_empty()
    }

    /// Copies bytes out of the pages. Context: any.
    ///
    /// # Errors
    ///
    /// [`EINVAL`] if the pages have fewer bytes from `offset` on.
    pub fn read(&self, offset: usize, to: &mut [u8]) -> Result {
        self.check(offset, to.len())?;

        for (at, byte) in (offset..).zip(to) {
            // SAFETY: By the type invariants the page is there, and initialised.
            *byte = unsafe { self.byte(at)?.read_volatile() };
        }

        Ok(())
    }

    /// Copies bytes into the pages. Context: any.
    ///
    /// # Errors
    ///
    /// [`EINVAL`] if there is no room for so many from `offset` on.
    pub fn write(&self, offset: usize, from: &[u8]) -> Result {
        self.check(offset, from.len())?;

        for (at, &byte) in (offset..).zip(from) {
            // SAFETY: By the type invariants the page is there. Nobody has a reference to it.
            unsafe { self.byte(at)?.write_volatile(byte) };
        }

        Ok(())
    }

    fn check(&self, offset: usize, len: usize) -> Result {
        match offset.checked_add(len) {
            Some(end) if end <= self.len() => Ok(()),
            _ => Err(EINVAL),
        }
    }

    /// Returns where a byte is.
    fn byte(&self, at: usize) -> Result<*mut u8> {
        let page = self.pages.get(at / PAGE_SIZE).ok_or(EINVAL)?;

        Ok(page.as_ptr().wrapping_add(at % PAGE_SIZE))
    }
}

impl Drop for SharedPages {
    fn drop(&mut self) {
        for page in &self.pages {
            // Gives one reference back, and frees the page if that was the last one.
            //
            // CAST: The C side takes the address as an `unsigned long`.
            // SAFETY: By the type invariants this is a page to which `self` has a reference.
            unsafe { bindings::free_pages(page.as_ptr() as c_ulong, 0) };
        }
    }
}

// SAFETY:
// 1. The pages of a value never change, and don't move.
// 2. Where they are is in the vector.
// 3. They came from the page allocator, initialised, and aren't freed as long as there is a
//    reference.
// 4. They are whole pages.
unsafe impl Scatter for SharedPages {
    #[inline]
    fn count(&self) -> usize {
        self.pages.len()
    }

    #[inline]
    fn piece(&self, at: usize) -> Piece {
        self.pages.get(at).map_or(Piece::EMPTY, |page| {
            // SAFETY: By the type invariants the page is in the linear map.
            let phys = unsafe { bindings::dma_linear_to_phys(page.as_ptr().cast()) };

            Piece::new(phys, PAGE_SIZE, PAGE_SIZE)
        })
    }
}
