// SPDX-License-Identifier: GPL-2.0

//! Access to memory that the CPU and a device use at the same time.
//!
//! C header: [`include/asm-generic/barrier.h`](srctree/include/asm-generic/barrier.h)

use super::{
    super::DmaAddress,
    address::within,
    barrier::loads_before_stores,
    DmaAddr,
    Untrusted, //
};
use crate::{
    io::{
        IoBackend,
        IoBase, //
    },
    prelude::*,
    ptr::KnownSize,
    sync::{
        atomic::{
            Atomic,
            Relaxed, //
        },
        barrier::{
            dma_mb,
            Read,
            Write, //
        }, //
    }, //
};
use core::mem::MaybeUninit;

/// A part of memory that the CPU and a device use at the same time: a field, an element, all of it.
///
/// It is how the CPU accesses a [`Shared`](super::Shared) or a `PoolEntry`. The
/// device may change the memory at any time. So there are no references to it: values are copied
/// out, as [`Untrusted`], and copied in.
///
/// To access one field, use [`dma_read!`] and [`dma_write!`], which make a view of it. To keep a
/// view of a part, or to get its [address](Self::address), use
/// [`io_project!`](crate::io::io_project).
///
/// All accesses are volatile, and ordered as messages need it: see [`read`](Self::read) and
/// [`write`](Self::write). The barriers are compiler barriers on x86. Where they cost more, use
/// [`write_relaxed`](Self::write_relaxed) for the words that are written before the one that
/// matters.
///
/// # Invariants
///
/// For as long as `'a`:
///
/// - `ptr` points to memory of the kernel that is as long and as aligned as a `T` is, and holds
///   initialised bytes. It is accessed by volatile reads and writes only.
/// - The device finds the memory at `addr`, which is noted in `is_shown` before it is handed out.
///
/// # Examples
///
/// ```
/// # use kernel::{dma::{Shared, SharedView}, prelude::*};
/// use kernel::io::io_project;
///
/// #[derive(FromBytes, IntoBytes)]
/// #[repr(C)]
/// struct Queue {
///     head: u32,
///     tail: u32,
///     entries: [[u32; 4]; 32],
/// }
///
/// /// Copies the entry that the device says is next.
/// fn next(queue: &Shared<'_, Queue>) -> Result<[u32; 4]> {
///     let head: SharedView<'_, u32> = io_project!(queue, .head);
///     let at = head.read().validate(|at| Ok(at as usize))?;
///     let entry = io_project!(queue, .entries[try: at]);
///
///     entry.snapshot().validate(|words| if words[0] != 0 { Ok(words) } else { Err(EIO) })
/// }
/// ```
pub struct SharedView<'a, T: ?Sized> {
    ptr: *mut T,
    addr: DmaAddress,
    is_shown: &'a Atomic<bool>,
}

// SAFETY: A view gives copies of plain data, and takes such, so it needs no more than `T: Send`.
unsafe impl<T: ?Sized + Send> Send for SharedView<'_, T> {}

// SAFETY: As above. Accesses are volatile, so that several threads may make them at the same time,
// as with `READ_ONCE()` and `WRITE_ONCE()`.
unsafe impl<T: ?Sized + Send> Sync for SharedView<'_, T> {}

impl<T: ?Sized> Clone for SharedView<'_, T> {
    #[inline]
    fn clone(&self) -> Self {
        *self
    }
}

impl<T: ?Sized> Copy for SharedView<'_, T> {}

impl<'a, T: ?Sized + KnownSize> SharedView<'a, T> {
    /// Makes a view of all of the memory.
    ///
    /// # Safety
    ///
    /// For as long as `'a`:
    ///
    /// - `ptr` must point to memory of the kernel that is as long and as aligned as a `T` is, holds
    ///   initialised bytes, and is accessed by volatile reads and writes only.
    /// - The device must find it at `addr`. Unless `is_shown` is set, the memory may be freed
    ///   though the device runs.
    #[inline]
    pub(super) unsafe fn new(ptr: *mut T, addr: DmaAddress, is_shown: &'a Atomic<bool>) -> Self {
        // INVARIANT: By the safety requirements.
        Self {
            ptr,
            addr,
            is_shown,
        }
    }

    /// Returns the bus address of this part of the memory.
    ///
    /// From here on all of the memory counts as shown, as with
    /// [`Shared::address`](super::Shared::address). Context: any.
    #[inline]
    pub fn address(self) -> DmaAddr<'a> {
        // INVARIANT: Noted before the address is handed out.
        self.is_shown.store(true, Relaxed);

        // SAFETY: By the type invariants the device finds the memory there for as long as `'a`.
        unsafe { DmaAddr::new(self.addr, T::size(self.ptr)) }
    }
}

mod private {
    /// What the CPU reads and writes at once.
    pub trait Sealed {}
}

/// An integer that the CPU reads and writes by one instruction, so that a device never sees or
/// leaves half of it.
///
/// These are the integers of up to the size of a pointer. They are as the CPU has them: convert
/// those of a device with another byte order by `to_le()`, `from_be()` and the like.
///
/// # Examples
///
/// ```
/// # use kernel::dma::{SharedView, Word};
/// fn clear<T: Word + From<u8>>(word: SharedView<'_, T>) {
///     word.write(0.into());
/// }
/// ```
pub trait Word: private::Sealed + FromBytes + IntoBytes + Copy + Send + 'static {}

macro_rules! impl_word {
    ($($word:ty),*) => {$(
        impl private::Sealed for $word {}
        impl Word for $word {}
    )*};
}

impl_word!(u8, u16, u32, usize, i8, i16, i32, isize);

#[cfg(CONFIG_64BIT)]
impl_word!(u64, i64);

impl<T: Word> SharedView<'_, T> {
    /// Reads the word, before all that the CPU reads later.
    ///
    /// If the device wrote other parts first and this word last, and the CPU finds this word
    /// written, it reads the other parts as they were written, too: a `dma_rmb()` follows the read.
    /// C: `READ_ONCE()`, `dma_rmb()`. Context: any.
    #[inline]
    pub fn read(self) -> Untrusted<T> {
        let value = self.read_relaxed();

        dma_mb(Read);
        value
    }

    /// Reads the word, in no order with other reads of the CPU.
    ///
    /// For words whose order doesn't matter, such as a counter that is only shown to a user.
    /// Context: any.
    #[inline]
    pub fn read_relaxed(self) -> Untrusted<T> {
        // SAFETY: By the type invariants the memory is valid and aligned; any bytes are a `T`.
        Untrusted::new(unsafe { self.ptr.read_volatile() })
    }

    /// Writes the word, after all that the CPU has read and written before.
    ///
    /// A device that finds this word written also finds what was written before it: a `dma_wmb()`
    /// precedes the write. The earlier reads of the CPU are over by then, so the device may write
    /// there again. C: `dma_wmb()`, `WRITE_ONCE()`. Context: any.
    ///
    /// The write isn't ordered before what the CPU reads *later*. If the driver then tells the
    /// device by a register, with `Io::write32()` and the like, nothing else is needed. But if it
    /// reads another word to see whether the device sleeps, put a `dma_mb(Full)` in between.
    #[inline]
    pub fn write(self, value: T) {
        loads_before_stores();
        dma_mb(Write);
        self.write_relaxed(value);
    }

    /// Writes the word, in no order with what the CPU has read and written before.
    ///
    /// For words that the device doesn't look at before it is told, by a [`write`](Self::write) of
    /// another word or by a register. Context: any.
    #[inline]
    pub fn write_relaxed(self, value: T) {
        // SAFETY: By the type invariants the memory is valid and aligned.
        unsafe { self.ptr.write_volatile(value) };
    }
}

impl<T: FromBytes> SharedView<'_, T> {
    /// Copies all of it, before all that the CPU reads later.
    ///
    /// Each aligned word is read once. But they are read one after the other, and the device may
    /// write meanwhile, so this may be a mix of old and new. If that matters, the device must leave
    /// the memory alone, or have a counter in it that shows a change. Context: any.
    #[inline]
    pub fn snapshot(self) -> Untrusted<T> {
        let mut copy = MaybeUninit::<T>::uninit();

        // SAFETY: By the type invariants there are so many initialised bytes, and in the copy there
        // is place for as many.
        unsafe { load(self.ptr.cast(), copy.as_mut_ptr().cast(), size_of::<T>()) };
        dma_mb(Read);

        // SAFETY: All of its bytes were written, and any bytes are a `T`.
        Untrusted::new(unsafe { copy.assume_init() })
    }
}

impl<T: IntoBytes> SharedView<'_, T> {
    /// Writes all of it, after all that the CPU has read and written before.
    ///
    /// Each aligned word is written once, one after the other. So use it for memory that the device
    /// doesn't look at yet: it could see a mix of old and new. Context: any.
    #[inline]
    pub fn put(self, value: T) {
        let value = core::mem::ManuallyDrop::new(value);

        loads_before_stores();
        dma_mb(Write);

        // SAFETY: By the type invariants there is place for so many bytes, and those of the value
        // are initialised, by `IntoBytes`.
        unsafe { store(self.ptr.cast(), (&raw const value).cast(), size_of::<T>()) };
    }
}

impl SharedView<'_, [u8]> {
    /// Copies all bytes, before all that the CPU reads later.
    ///
    /// As [`snapshot`](Self::snapshot), for a length that isn't known to the compiler. They may be
    /// anything; a [`Reader`](super::Reader) takes them apart. Context: any.
    ///
    /// # Errors
    ///
    /// [`EINVAL`] if `to` hasn't the same length.
    pub fn copy_to(self, to: &mut [u8]) -> Result {
        if to.len() != self.ptr.len() {
            return Err(EINVAL);
        }

        // SAFETY: By the type invariants there are so many initialised bytes; `to` is as long.
        unsafe { load(self.ptr.cast(), to.as_mut_ptr(), to.len()) };
        dma_mb(Read);
        Ok(())
    }

    /// Writes all bytes, after all that the CPU has read and written before.
    ///
    /// As [`put`](Self::put), for a length that isn't known to the compiler. Context: any.
    ///
    /// # Errors
    ///
    /// [`EINVAL`] if `from` hasn't the same length.
    pub fn copy_from(self, from: &[u8]) -> Result {
        if from.len() != self.ptr.len() {
            return Err(EINVAL);
        }

        loads_before_stores();
        dma_mb(Write);

        // SAFETY: By the type invariants there is place for so many bytes; `from` is as long.
        unsafe { store(self.ptr.cast(), from.as_ptr(), from.len()) };
        Ok(())
    }
}

/// Returns where in `len` bytes from `ptr` on the aligned words begin and end.
#[inline]
fn words(ptr: *const u8, len: usize) -> (usize, usize) {
    let head = (ptr.addr().wrapping_neg() % size_of::<usize>()).min(len);

    (head, len - (len - head) % size_of::<usize>())
}

/// Copies bytes out of shared memory: aligned words, and bytes around them, each by one volatile
/// read.
///
/// # Safety
///
/// There must be `len` initialised bytes at `from`, and `len` bytes to write at `to`.
#[inline]
unsafe fn load(from: *const u8, to: *mut u8, len: usize) {
    let (head, behind) = words(from, len);

    for i in Iterator::chain(0..head, behind..len) {
        // SAFETY: By the safety requirements: the index is less than the length.
        unsafe { to.add(i).write(from.add(i).read_volatile()) };
    }

    for i in (head..behind).step_by(size_of::<usize>()) {
        // SAFETY: By the safety requirements; between `head` and `behind` are whole words, and
        // `from` is aligned there.
        unsafe {
            to.add(i)
                .cast::<usize>()
                .write_unaligned(from.add(i).cast::<usize>().read_volatile())
        };
    }
}

/// Copies bytes into shared memory: aligned words, and bytes around them, each by one volatile
/// write.
///
/// # Safety
///
/// There must be `len` initialised bytes at `from`, and `len` bytes to write at `to`.
#[inline]
unsafe fn store(to: *mut u8, from: *const u8, len: usize) {
    let (head, behind) = words(to, len);

    for i in Iterator::chain(0..head, behind..len) {
        // SAFETY: By the safety requirements: the index is less than the length.
        unsafe { to.add(i).write_volatile(from.add(i).read()) };
    }

    for i in (head..behind).step_by(size_of::<usize>()) {
        // SAFETY: By the safety requirements; between `head` and `behind` are whole words, and `to`
        // is aligned there.
        unsafe {
            to.add(i)
                .cast::<usize>()
                .write_volatile(from.add(i).cast::<usize>().read_unaligned())
        };
    }
}

impl<'a, T: ?Sized + KnownSize> IoBase<'a> for SharedView<'a, T> {
    type Backend = SharedBackend;
    type Target = T;

    #[inline]
    fn as_view(self) -> Self {
        self
    }
}

/// How [`io_project!`](crate::io::io_project) finds parts of shared memory.
///
/// It can't do more: [`io_read!`](crate::io::io_read) would return what a device wrote as if
/// somebody had checked it, and neither it nor [`io_write!`](crate::io::io_write) has barriers.
#[doc(hidden)]
pub struct SharedBackend;

impl IoBackend for SharedBackend {
    type View<'a, T: ?Sized + KnownSize> = SharedView<'a, T>;

    #[inline]
    fn as_ptr<'a, T: ?Sized + KnownSize>(view: Self::View<'a, T>) -> *mut T {
        view.ptr
    }

    #[inline]
    unsafe fn project_view<'a, T: ?Sized + KnownSize, U: ?Sized + KnownSize>(
        view: Self::View<'a, T>,
        ptr: *mut U,
    ) -> Self::View<'a, U> {
        // INVARIANT: By the safety requirements it is a part of what `view` is of, so it is valid
        // and aligned, and the device finds it as many bytes further on.
        SharedView {
            ptr,
            addr: within(view.addr, ptr.addr() - view.ptr.addr()),
            is_shown: view.is_shown,
        }
    }
}

/// Reads a word of memory that the CPU shares with a device, before all that it reads later.
///
/// `dma_read!(memory, .field)`, where `memory` is a `&`[`Shared`](super::Shared), a
/// `&PoolEntry` or a [`SharedView`], and the rest
/// [says which part](crate::ptr::project). It is [`SharedView::read`] of that part, an
/// [`Untrusted`].
///
/// # Examples
///
/// ```
/// # use kernel::{dma::Shared, prelude::*};
/// use kernel::dma::dma_read;
///
/// fn third(numbers: &Shared<'_, [u32]>) -> Result<u32> {
///     dma_read!(numbers, [try: 2]).at_most(100)
/// }
/// ```
#[macro_export]
#[doc(hidden)]
macro_rules! dma_read {
    ($memory:expr, $($part:tt)*) => {
        $crate::dma::SharedView::read($crate::io_project!($memory, $($part)*))
    };
}
#[doc(inline)]
pub use crate::dma_read;

/// Writes a word of memory that the CPU shares with a device, after all that it has read and
/// written.
///
/// `dma_write!(memory, .field, value)`, where `memory` and the part are as for [`dma_read!`]. It is
/// [`SharedView::write`] of that part.
///
/// # Examples
///
/// ```
/// # use kernel::{dma::Shared, prelude::*};
/// use kernel::dma::dma_write;
///
/// #[derive(FromBytes, IntoBytes)]
/// #[repr(C)]
/// struct Command {
///     arguments: [u32; 3],
///     go: u32,
/// }
///
/// /// The device sees the arguments before it sees `go`.
/// fn send(command: &Shared<'_, Command>, argument: u32) {
///     dma_write!(command, .arguments[build: 0], argument);
///     dma_write!(command, .go, 1);
/// }
/// ```
#[macro_export]
#[doc(hidden)]
macro_rules! dma_write {
    (@parse [$memory:expr] [$($part:tt)*] [, $value:expr]) => {
        $crate::dma::SharedView::write($crate::io_project!($memory, $($part)*), $value)
    };
    (@parse [$memory:expr] [$($part:tt)*] [.$field:tt $($rest:tt)*]) => {
        $crate::dma_write!(@parse [$memory] [$($part)* .$field] [$($rest)*])
    };
    (@parse [$memory:expr] [$($part:tt)*] [[$flavour:ident: $index:expr] $($rest:tt)*]) => {
        $crate::dma_write!(@parse [$memory] [$($part)* [$flavour: $index]] [$($rest)*])
    };
    ($memory:expr, $($rest:tt)*) => {
        $crate::dma_write!(@parse [$memory] [] [$($rest)*])
    };
}
#[doc(inline)]
pub use crate::dma_write;
