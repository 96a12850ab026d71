// SPDX-License-Identifier: GPL-2.0

//! Memory that may be mapped for streaming DMA.

use super::Pages;
use crate::{
    bindings,
    page::PAGE_SIZE,
    prelude::*, //
};

/// Memory that can be mapped for streaming DMA: owned, and physically contiguous.
///
/// Use a `KBox` or a `KVec` of plain data for small buffers, [`Pages`] for large ones. A driver
/// hardly ever implements this trait.
///
/// Nothing else can be mapped. In particular, these don't compile:
///
/// - the stack and `vmalloc()` memory, which may not be contiguous;
/// - a borrowed slice, since the borrow could end, by `mem::forget()`, while the device writes;
/// - a `T` for which some bit patterns are invalid, since the device may write any bytes;
/// - uninitialised memory, since a bounce buffer copies all bytes, whatever the direction. Write to
///   it before, for instance by `KBox::write()`.
///
/// # Safety
///
/// As long as the buffer is neither dropped nor accessed through methods other than these:
///
/// 1. [`as_ptr`](Self::as_ptr) and [`as_mut_ptr`](Self::as_mut_ptr) return the same address each
///    time, even if the value is moved. It is the address of the *contents*.
/// 2. [`len`](Self::len) returns the same number each time, and
///    [`allocation`](Self::allocation) at least that number.
/// 3. None of these methods reads or writes the contents, which the device may be writing.
/// 4. The first `len` bytes of the contents are initialised, lie in the kernel's linear map (not in
///    its image), are physically contiguous, and belong to the buffer alone. Any values may be
///    written to them, at any time.
/// 5. The first `allocation` bytes from that address on belong to this buffer and to nothing else.
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
#[diagnostic::on_unimplemented(
    message = "`{Self}` can't be mapped for DMA",
    label = "this memory is not owned, or may be in several places",
    note = "map memory that is owned and physically contiguous: `KBox`, `KVec`, `dma::Pages`",
    note = "what is inside is plain data: its type derives `FromBytes` and `IntoBytes`"
)]
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

    /// Returns the number of bytes that were allocated for the buffer, mapped or not.
    ///
    /// On a device that isn't cache coherent, this tells whether the last cache line of the buffer
    /// is shared with something else. Such a buffer isn't mapped for the device to write.
    fn allocation(&self) -> usize;
}

/// Returns how many bytes `kmalloc()` sets aside for a request of that many
/// (C: `kmalloc_size_roundup()`).
#[inline]
fn allocated(bytes: usize) -> usize {
    // So many pages it sets aside as they are, which is known without asking.
    if bytes >= PAGE_SIZE && bytes.is_power_of_two() {
        return bytes;
    }

    // SAFETY: No requirements.
    unsafe { bindings::kmalloc_size_roundup(bytes) }
}

// SAFETY:
// 1. The contents of a `KBox` don't move with the box.
// 2. Both depend on the type only.
// 3. The methods make raw pointers. The box is made of one, so moving it asserts nothing about the
//    contents.
// 4. The contents are one kmalloc() allocation: linear, contiguous, and the box's alone. By
//    `FromBytes` any bytes are a valid value; by `IntoBytes` none is uninitialised.
// 5. `kmalloc()` gives nobody else the rest of what it has set aside.
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

// SAFETY: As for `KBox<T>`; the length is a part of the box itself, and never changes.
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
        // `self.len()` would make a reference to the elements, which the device may be writing.
        //
        // SAFETY: A `Box` is a transparent wrapper of the pointer to its contents.
        let content = unsafe { core::mem::transmute_copy::<Self, *const [T]>(self) };

        content.len() * size_of::<T>()
    }

    #[inline]
    fn allocation(&self) -> usize {
        allocated(Buffer::len(self))
    }
}

// SAFETY:
// 1., 2. Only other methods of the vector move or resize the elements.
// 3. As for `KBox`: the pointer and both lengths are in the vector itself.
// 4. The elements are one kmalloc() allocation; the rest is as for `KBox`. The unused capacity is
//    not initialised, and not a part of `len`.
// 5. The unused capacity is a part of the same allocation.
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

// SAFETY: By the type invariants of `Pages`: 1., 2. the block and its order never change; 3. the
// methods make a slice of it, which asserts nothing about values of bytes; 4., 5. it is one
// initialised block of the page allocator, which is linear, contiguous, and owned.
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
