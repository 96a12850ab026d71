// SPDX-License-Identifier: GPL-2.0

//! Memory in several pieces.

use super::super::{
    Buffer,
    Pages, //
};
use crate::{
    bindings,
    io::PhysAddr,
    page::PAGE_SIZE,
    prelude::*, //
};

/// A piece of memory: physically contiguous bytes.
///
/// A [`Scatter`] consists of them. Drivers don't use it.
#[derive(Clone, Copy)]
pub struct Piece {
    pub(super) phys: PhysAddr,
    pub(super) len: usize,
    pub(super) room: usize,
}

impl Piece {
    /// No memory.
    pub(super) const EMPTY: Self = Self {
        phys: 0,
        len: 0,
        room: 0,
    };

    /// Describes `len` bytes at a physical address. The first `room` bytes from there on, mapped or
    /// not, belong to the same owner.
    #[inline]
    pub(crate) fn new(phys: PhysAddr, len: usize, room: usize) -> Self {
        Self { phys, len, room }
    }

    #[cfg(CONFIG_RUST_DMA_KUNIT_TEST)]
    pub(in crate::dma) fn phys(&self) -> PhysAddr {
        self.phys
    }

    #[cfg(CONFIG_RUST_DMA_KUNIT_TEST)]
    pub(in crate::dma) fn len(&self) -> usize {
        self.len
    }

    /// Describes the contents of a buffer.
    #[inline]
    fn of<B: Buffer>(buf: &B) -> Self {
        // SAFETY: By the contract of `Buffer` the contents are in the linear map.
        let phys = unsafe { bindings::dma_linear_to_phys(buf.as_ptr().cast()) };

        Self::new(phys, Buffer::len(buf), buf.allocation())
    }
}

/// Memory in pieces, each of which is physically contiguous: what a
/// [`ScatterMap`](super::ScatterMap) can be made of.
///
/// Use it for what is too large, or comes from too many places, to be one
/// [`Buffer`](super::super::Buffer):
///
/// | memory | pieces | owners |
/// |---|---|---|
/// | `KVec<B>` of a `Buffer` | the buffers | one ([`Exclusive`]) |
/// | `VVec<u8>` | the pages of a `vmalloc()` area | one ([`Exclusive`]) |
/// | [`Pages`] | one, which is divided if it is too long | one ([`Exclusive`]) |
/// | [`SharedPages`](super::SharedPages) | pages | all that hold a reference |
///
/// The memory may have other owners, as long as it stays in its place. So `Scatter` alone gives no
/// access to the bytes: [`Exclusive`] does. Drivers hardly ever implement this trait.
///
/// # Safety
///
/// As long as the value is neither dropped nor accessed through methods other than those of this
/// trait and of [`Exclusive`]:
///
/// 1. [`count`](Self::count) returns the same number each time, and for each smaller index
///    [`piece`](Self::piece) returns the same piece, even if the value is moved.
/// 2. Neither method reads or writes the contents, which the device may be writing.
/// 3. Each piece is system memory with a `struct page` for each page. It stays allocated, and its
///    bytes are initialised. Any values may be written to them, at any time.
/// 4. The first `room` bytes of a piece belong to this value and to those with whom it shares
///    the piece, and to nothing else.
///
/// # Examples
///
/// ```
/// use kernel::dma::{Pages, Scatter};
///
/// let mut pages = KVec::new();
///
/// for order in [0, 2, 1] {
///     pages.push(Pages::zeroed(order, GFP_KERNEL)?, GFP_KERNEL)?;
/// }
///
/// assert_eq!(Scatter::count(&pages), 3);
/// # Ok::<(), Error>(())
/// ```
pub unsafe trait Scatter: Send + 'static {
    /// Returns the number of pieces.
    fn count(&self) -> usize;

    /// Returns a piece, by its index. What it returns for an index that is too large is not used.
    fn piece(&self, at: usize) -> Piece;
}

/// A [`Scatter`] without other owners: while the CPU owns it, its bytes can be read and written.
///
/// The bytes come in *slices*. A slice is contiguous for the CPU, and need not be a piece: a `VVec`
/// is one slice, however many pieces it has.
///
/// # Safety
///
/// Under the conditions of [`Scatter`]:
///
/// 1. [`slices`](Self::slices) returns the same number each time, and for each smaller index
///    [`slice`](Self::slice) and [`slice_mut`](Self::slice_mut) return the same slice.
/// 2. None of the methods reads or writes the contents.
/// 3. The slices, in order, are the bytes of the pieces, in order. They are valid for reads and
///    writes, don't overlap, and belong to the value alone.
///
/// # Examples
///
/// ```
/// # use kernel::prelude::*;
/// use kernel::dma::{Exclusive, Mapper, Scatter, ScatterBox, ToDevice};
///
/// /// Maps memory that is filled by `fill`, slice by slice.
/// fn filled<'a, S: Exclusive>(
///     dma: Mapper<'a>,
///     memory: S,
///     fill: impl FnMut(&mut [u8]),
/// ) -> Result<ScatterBox<'a, S, ToDevice>> {
///     let mut list = ScatterBox::map(dma, memory, GFP_KERNEL)?;
///
///     list.slices_mut().for_each(fill);
///     Ok(list)
/// }
/// ```
pub unsafe trait Exclusive: Scatter {
    /// Returns the number of slices.
    fn slices(&self) -> usize;

    /// Returns a slice, by its index, for reading. What it returns for an index that is too large
    /// is not used.
    fn slice(&self, at: usize) -> *const [u8];

    /// Returns a slice, by its index, for writing.
    fn slice_mut(&mut self, at: usize) -> *mut [u8];
}

/// An empty slice, for an index that is too large.
const NO_BYTES: *mut [u8] = core::ptr::slice_from_raw_parts_mut(core::ptr::dangling_mut(), 0);

// SAFETY: Only other methods of the vector add, remove or exchange buffers. The buffers themselves
// aren't the contents, so to look at them reads no contents. For each of them, by the numbers, and
// by the contract of `Buffer`:
// 1. Its contents don't move.
// 2. Its methods don't read or write them.
// 3. It is initialised memory of the linear map, for any values.
// 4. It says itself how much is allocated.
unsafe impl<B: Buffer> Scatter for KVec<B> {
    #[inline]
    fn count(&self) -> usize {
        self.len()
    }

    #[inline]
    fn piece(&self, at: usize) -> Piece {
        self.get(at).map_or(Piece::EMPTY, Piece::of)
    }
}

// SAFETY: As above; each slice is a piece. The contents of a `Buffer` belong to it alone.
unsafe impl<B: Buffer> Exclusive for KVec<B> {
    #[inline]
    fn slices(&self) -> usize {
        self.len()
    }

    #[inline]
    fn slice(&self, at: usize) -> *const [u8] {
        self.get(at).map_or(NO_BYTES, |buf| {
            core::ptr::slice_from_raw_parts(buf.as_ptr(), Buffer::len(buf))
        })
    }

    #[inline]
    fn slice_mut(&mut self, at: usize) -> *mut [u8] {
        self.get_mut(at).map_or(NO_BYTES, |buf| {
            core::ptr::slice_from_raw_parts_mut(buf.as_mut_ptr(), Buffer::len(buf))
        })
    }
}

// SAFETY: By the contract of `Buffer`, which `Pages` is.
unsafe impl Scatter for Pages {
    #[inline]
    fn count(&self) -> usize {
        1
    }

    #[inline]
    fn piece(&self, _at: usize) -> Piece {
        Piece::of(self)
    }
}

// SAFETY: As above; the only slice is the only piece.
unsafe impl Exclusive for Pages {
    #[inline]
    fn slices(&self) -> usize {
        1
    }

    #[inline]
    fn slice(&self, _at: usize) -> *const [u8] {
        core::ptr::slice_from_raw_parts(Buffer::as_ptr(self), Buffer::len(self))
    }

    #[inline]
    fn slice_mut(&mut self, _at: usize) -> *mut [u8] {
        core::ptr::slice_from_raw_parts_mut(Buffer::as_mut_ptr(self), Buffer::len(self))
    }
}

// SAFETY:
// 1. Only other methods of the vector move or resize the area; its pages aren't moved.
// 2. The pointer and the length are in the vector itself; where the pages are is in page tables.
// 3. `vmalloc()` areas consist of pages of system memory. The first `len` bytes are initialised.
// 4. The area is made of whole pages, so the rest of the last one belongs to the vector.
unsafe impl Scatter for VVec<u8> {
    #[inline]
    fn count(&self) -> usize {
        self.len().div_ceil(PAGE_SIZE)
    }

    #[inline]
    fn piece(&self, at: usize) -> Piece {
        let start = at.saturating_mul(PAGE_SIZE);

        if start >= self.len() {
            return Piece::EMPTY;
        }

        // A `vmalloc()` area begins on a page.
        let page = self.as_slice().as_ptr().wrapping_add(start);

        // SAFETY: The area has a page there, since `start` is less than its length.
        let phys = unsafe { bindings::dma_vmalloc_to_phys(page.cast()) };

        Piece::new(phys, PAGE_SIZE.min(self.len() - start), PAGE_SIZE)
    }
}

// SAFETY: As above. The area is where the CPU sees the pages, one after the other. It belongs to
// the vector alone, and so do the pages.
unsafe impl Exclusive for VVec<u8> {
    #[inline]
    fn slices(&self) -> usize {
        1
    }

    #[inline]
    fn slice(&self, _at: usize) -> *const [u8] {
        core::ptr::slice_from_raw_parts(self.as_slice().as_ptr(), self.len())
    }

    #[inline]
    fn slice_mut(&mut self, _at: usize) -> *mut [u8] {
        core::ptr::slice_from_raw_parts_mut(VVec::as_mut_ptr(self), self.len())
    }
}
