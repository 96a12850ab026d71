// SPDX-License-Identifier: GPL-2.0

//! Memory that may be mapped for streaming DMA.

use super::Pages;
use crate::{
    bindings,
    prelude::*, //
};

/// An owned, contiguous piece of the linear map that a device may access.
///
/// The type decides what can be mapped at all: not the stack, not `vmalloc()` memory, not a
/// borrowed slice (whose guard could be forgotten while the device writes), not a `T` in which
/// some bit patterns are invalid or some bytes uninitialised (a bounce buffer copies old bytes
/// out, whatever the direction).
///
/// # Safety
///
/// As long as the buffer is neither dropped nor accessed through its own methods:
///
/// - [`as_ptr`](Self::as_ptr) and [`as_mut_ptr`](Self::as_mut_ptr) return one and the same address,
///   wherever the buffer itself is moved;
/// - `len` and `allocation` don't access them;
/// - the [`len`](Self::len) bytes from there on are initialised, lie in the kernel's linear map,
///   are physically contiguous, and belong to the buffer alone; any values may be written to them,
///   by anybody, at any time;
/// - the [`allocation`](Self::allocation) bytes from there on hold nothing else than this buffer.
///
/// `len` returns the same value each time, and `allocation` at least that.
///
/// # Examples
///
/// ```
/// use kernel::dma::Buffer;
///
/// let boxed = KBox::new([0_u32; 16], GFP_KERNEL)?;
/// let vec = KVec::from_elem(0_u8, 100, GFP_KERNEL)?;
///
/// assert_eq!(Buffer::len(&boxed), 64);
/// assert!(vec.allocation() >= 100);
/// # Ok::<(), Error>(())
/// ```
pub unsafe trait Buffer: Send + 'static {
    /// Returns the address of the first byte, for reading.
    fn as_ptr(&self) -> *const u8;

    /// Returns the address of the first byte, for writing.
    fn as_mut_ptr(&mut self) -> *mut u8;

    /// Returns the number of bytes to be mapped.
    fn len(&self) -> usize;

    /// Returns whether there is nothing to map.
    #[inline]
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the number of bytes that belong to the buffer, mapped or not.
    ///
    /// On a device that isn't cache coherent a buffer may only be written by the device if it
    /// shares no cache line with something else.
    fn allocation(&self) -> usize;
}

/// Returns how much memory the allocator sets aside for a request: the rest belongs to the same
/// allocation.
#[inline]
fn allocated(bytes: usize) -> usize {
    // SAFETY: No requirements.
    unsafe { bindings::kmalloc_size_roundup(bytes) }
}

// SAFETY: The content of a `KBox` is one kmalloc() allocation: linear, contiguous, not moved with
// the box. `FromBytes` and `IntoBytes` make any bytes a valid value and leave none uninitialised.
// The box is made of a raw pointer, so moving it asserts nothing about the content.
unsafe impl<T: FromBytes + IntoBytes + Send + 'static> Buffer for KBox<T> {
    #[inline]
    fn as_ptr(&self) -> *const u8 {
        (&raw const **self).cast()
    }

    #[inline]
    fn as_mut_ptr(&mut self) -> *mut u8 {
        (&raw mut **self).cast()
    }

    #[inline]
    fn len(&self) -> usize {
        size_of::<T>()
    }

    #[inline]
    fn allocation(&self) -> usize {
        allocated(size_of::<T>())
    }
}

// SAFETY: As for `KBox<T>`.
unsafe impl<T: FromBytes + IntoBytes + Send + 'static> Buffer for KBox<[T]> {
    #[inline]
    fn as_ptr(&self) -> *const u8 {
        (&raw const **self).cast()
    }

    #[inline]
    fn as_mut_ptr(&mut self) -> *mut u8 {
        (&raw mut **self).cast()
    }

    #[inline]
    fn len(&self) -> usize {
        // Not by a reference to the elements, which the device may be writing.
        //
        // SAFETY: A `Box` is a transparent wrapper of the pointer to its content.
        let content = unsafe { core::mem::transmute_copy::<Self, *const [T]>(self) };

        content.len() * size_of::<T>()
    }

    #[inline]
    fn allocation(&self) -> usize {
        allocated(Buffer::len(self))
    }
}

// SAFETY: The elements of a `KVec` are one kmalloc() allocation, which only methods of the vector
// move or resize. The rest is as for `KBox`; the unused capacity is never mapped, as it is not
// initialised, but it is part of the allocation.
unsafe impl<T: FromBytes + IntoBytes + Send + 'static> Buffer for KVec<T> {
    #[inline]
    fn as_ptr(&self) -> *const u8 {
        self.as_slice().as_ptr().cast()
    }

    #[inline]
    fn as_mut_ptr(&mut self) -> *mut u8 {
        KVec::as_mut_ptr(self).cast()
    }

    #[inline]
    fn len(&self) -> usize {
        KVec::len(self) * size_of::<T>()
    }

    #[inline]
    fn allocation(&self) -> usize {
        allocated(self.capacity().saturating_mul(size_of::<T>()))
    }
}

// SAFETY: By the invariants of `Pages`: one initialised block of the page allocator, owned.
unsafe impl Buffer for Pages {
    #[inline]
    fn as_ptr(&self) -> *const u8 {
        (**self).as_ptr()
    }

    #[inline]
    fn as_mut_ptr(&mut self) -> *mut u8 {
        (**self).as_mut_ptr()
    }

    #[inline]
    fn len(&self) -> usize {
        self.size()
    }

    #[inline]
    fn allocation(&self) -> usize {
        self.size()
    }
}
