// SPDX-License-Identifier: GPL-2.0

//! Coherent memory that the CPU and a running device both use.
//!
//! Small blocks of it are in a `Pool`.
//!
//! C header: [`include/linux/dma-mapping.h`](srctree/include/linux/dma-mapping.h)

use super::{
    super::DmaAddress,
    barrier::loads_before_stores,
    streaming::hand_over,
    view::{
        SharedBackend,
        SharedView, //
    },
    DmaAddr,
    Mapper, //
};
use crate::{
    alloc::Flags,
    io::IoBase,
    page::PAGE_SIZE,
    prelude::*,
    ptr::KnownSize,
    sync::atomic::{
        Atomic,
        Relaxed, //
    }, //
};
use core::{
    mem::{
        needs_drop,
        ManuallyDrop, //
    },
    ops::{
        Deref,
        DerefMut, //
    },
    ptr::NonNull, //
};

mod device_only;
mod later;
mod memory;
mod noncoherent;
mod user;
mod user_mappings;

pub use self::{
    device_only::DeviceOnly,
    memory::AllocAttrs,
    noncoherent::{
        Noncoherent,
        NoncoherentBox, //
    },
    user::UserShared, //
};

pub(in crate::dma) use self::later::Later;

use self::memory::Memory;

/// Coherent memory that the CPU owns: no device accesses it.
///
/// Allocate it and fill it like any other memory: it dereferences to the `T` inside. Then let the
/// device have it by [`submit`](Self::submit). Dropping it frees the memory (C:
/// `dma_free_coherent()`). Forgetting it leaks the memory.
///
/// A `T` is plain data, or a slice of such, and not zero-sized. The memory comes in whole pages:
/// for less there is a `Pool`.
///
/// Context of dropping it: any. C frees such memory only where interrupts are on, and on some
/// machines only where one may sleep. Elsewhere a work item frees it soon.
///
/// # Invariants
///
/// This owns `memory`, which is a valid `T` at `ptr`; no device accesses it.
///
/// # Examples
///
/// ```
/// # use kernel::{dma::{Mapper, Shared, SharedBox}, prelude::*};
/// #[derive(FromBytes, IntoBytes)]
/// #[repr(C)]
/// struct Mailbox {
///     command: u32,
///     status: u32,
///     data: [u8; 8000],
/// }
///
/// fn mailbox<'a>(dma: Mapper<'a>) -> Result<Shared<'a, Mailbox>> {
///     let mut mailbox = SharedBox::<Mailbox>::new(dma, GFP_KERNEL)?;
///
///     mailbox.status = 1;
///     mailbox.data[..5].copy_from_slice(b"hello");
///     Ok(mailbox.submit())
/// }
/// ```
#[must_use = "dropping it frees the memory"]
pub struct SharedBox<'a, T: ?Sized> {
    memory: ManuallyDrop<Memory<'a>>,
    ptr: NonNull<T>,
}

// SAFETY: It owns a `T`, and any thread may free the memory.
unsafe impl<T: ?Sized + Send> Send for SharedBox<'_, T> {}

// SAFETY: A shared reference shows a `&T`, and no more.
unsafe impl<T: ?Sized + Sync> Sync for SharedBox<'_, T> {}

impl<'a, T: FromBytes + IntoBytes + Send + 'static> SharedBox<'a, T> {
    /// Allocates memory for a `T`, all of whose bytes are zero (C: `dma_alloc_coherent()`).
    ///
    /// The device can address the memory with its coherent mask. The memory meets the boundary and
    /// the alignment of the device's [`Constraints`](super::Constraints). The longest segment is no
    /// limit: such memory often is a table, and the device reads an entry at a time. The kernel
    /// looks for memory on the device's NUMA node first.
    ///
    /// Context: any that `flags` allow. With [`GFP_ATOMIC`], the memory of a device that isn't
    /// cache coherent comes from a pool that the kernel sets aside (its parameter `coherent_pool=`
    /// says how much).
    ///
    /// # Errors
    ///
    /// - [`EINVAL`] if the memory breaks the constraints at its address, or is so long that it does
    ///   so at any address;
    /// - [`ENOMEM`].
    #[inline]
    pub fn new(dma: Mapper<'a>, flags: Flags) -> Result<Self> {
        Self::new_with(dma, flags, AllocAttrs::NONE)
    }

    /// As [`new`](Self::new), with attributes (C: `dma_alloc_attrs()`, `dma_alloc_wc()`).
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new).
    pub fn new_with(dma: Mapper<'a>, flags: Flags, attrs: AllocAttrs) -> Result<Self> {
        const { check::<T>() };

        let (memory, cpu) = Memory::new(dma, size_of::<T>(), flags, attrs)?;

        // INVARIANT: As long as a `T`, and zeroed. It begins on a page, and no `T` is aligned to
        // more. Nobody else knows the memory.
        Ok(Self {
            memory: ManuallyDrop::new(memory),
            ptr: cpu.cast(),
        })
    }
}

impl<'a, T: FromBytes + IntoBytes + Send + 'static> SharedBox<'a, [T]> {
    /// Allocates memory for `len` values, all of whose bytes are zero (C: `dma_alloc_coherent()`).
    ///
    /// Context: as [`new`](SharedBox::new).
    ///
    /// # Errors
    ///
    /// As [`new`](SharedBox::new), and [`EINVAL`] if `len` is 0.
    #[inline]
    pub fn slice(dma: Mapper<'a>, len: usize, flags: Flags) -> Result<Self> {
        Self::slice_with(dma, len, flags, AllocAttrs::NONE)
    }

    /// As [`slice`](Self::slice), with attributes (C: `dma_alloc_attrs()`, `dma_alloc_wc()`).
    ///
    /// # Errors
    ///
    /// As [`slice`](Self::slice).
    pub fn slice_with(
        dma: Mapper<'a>,
        len: usize,
        flags: Flags,
        attrs: AllocAttrs,
    ) -> Result<Self> {
        const { check::<T>() };

        let size = size_of::<T>().checked_mul(len).ok_or(ENOMEM)?;
        let (memory, cpu) = Memory::new(dma, size, flags, attrs)?;

        // INVARIANT: As long as so many values, which fit into memory; the rest is as in
        // `SharedBox::new_with()`.
        Ok(Self {
            memory: ManuallyDrop::new(memory),
            ptr: NonNull::slice_from_raw_parts(cpu.cast(), len),
        })
    }
}

/// Refuses, at compile time, types that can't be in coherent memory.
const fn check<T>() {
    assert!(size_of::<T>() > 0, "memory of no bytes");
    assert!(!needs_drop::<T>(), "nobody drops what is in the memory");
    // Backends promise no more.
    assert!(align_of::<T>() <= PAGE_SIZE, "aligned to more than a page");
}

impl<'a, T: ?Sized + KnownSize> SharedBox<'a, T> {
    /// Lets the device have the memory. The CPU keeps its part: see [`Shared`].
    ///
    /// Then tell the device the address by `Io::write32()`, or in other shared memory by
    /// [`dma_write!`](super::dma_write). These are ordered after all that the CPU wrote before, so
    /// the device sees it. Context: any.
    #[inline]
    pub fn submit(self) -> Shared<'a, T> {
        let (memory, ptr) = self.into_parts();

        // The device may write from here on, so the CPU must have read before.
        loads_before_stores();
        hand_over(ptr.as_ptr().cast());

        // INVARIANT: `self` is gone, and with it all references to the contents. Nobody has asked
        // for the address.
        Shared {
            memory: ManuallyDrop::new(memory),
            ptr,
            is_shown: Atomic::new(false),
        }
    }

    #[inline]
    fn into_parts(self) -> (Memory<'a>, NonNull<T>) {
        let mut this = ManuallyDrop::new(self);

        // SAFETY: `this` is not dropped and not used afterwards.
        (unsafe { ManuallyDrop::take(&mut this.memory) }, this.ptr)
    }
}

impl<T: ?Sized> Deref for SharedBox<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: By the type invariants there is a valid `T`, which no device accesses.
        unsafe { self.ptr.as_ref() }
    }
}

impl<T: ?Sized> DerefMut for SharedBox<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: By the type invariants there is a valid `T`, which no device accesses.
        unsafe { self.ptr.as_mut() }
    }
}

impl<T: ?Sized> Drop for SharedBox<'_, T> {
    fn drop(&mut self) {
        // SAFETY: `self` is not used afterwards.
        let memory = unsafe { ManuallyDrop::take(&mut self.memory) };

        // SAFETY: By the type invariants no device accesses the memory; the CPU doesn't any more.
        unsafe { memory.free() };
    }
}

/// Coherent memory that the CPU and a running device both use: a mailbox, a table, a queue.
///
/// The device finds it at its [`address`](Self::address), and may change it at any time. So the CPU
/// has no references to it: it reads and writes words, by [`dma_read!`](super::dma_read) and
/// [`dma_write!`](super::dma_write). What it reads is [`Untrusted`](super::Untrusted), and the
/// barriers are in the accesses: [`SharedView`] says more. The type says who may use the memory:
///
/// ```text
///                    new(), slice()               submit()
///         nothing -----------------> SharedBox -------------> Shared
///                 <-----------------           <-------------
///                        drop                    take_back(), complete()
///
///                              (the CPU owns it)        (both use it)
/// ```
///
/// Dropping it is safe at any time, as with [`Streaming`](super::Streaming):
///
/// - The memory is freed if nobody asked for the address, or if the device didn't run since it was
///   last proven to have stopped.
/// - Otherwise it is quarantined until there is such a proof, and the log says so.
///
/// So a driver keeps it in its session, or next to it. Forgetting it leaks the memory.
///
/// Context of dropping it: any, as with [`SharedBox`].
///
/// # Invariants
///
/// This owns `memory`, which is a valid `T` at `ptr`, whatever the device writes; there are no
/// references to it. Unless `is_shown`, nobody has the address; or who has it owns this, and drops
/// it only when the device is done.
///
/// # Examples
///
/// ```
/// # use kernel::{dma::{Mapper, Shared}, prelude::*};
/// use kernel::dma::{dma_read, dma_write};
///
/// #[derive(FromBytes, IntoBytes)]
/// #[repr(C)]
/// struct Mailbox {
///     command: u32,
///     status: u32,
/// }
///
/// const DONE: u32 = 1;
///
/// fn send(mailbox: &Shared<'_, Mailbox>, command: u32) {
///     assert_eq!(mailbox.address().len(), 8);
///
///     dma_write!(mailbox, .status, 0);
///     dma_write!(mailbox, .command, command);
/// }
///
/// fn is_done(mailbox: &Shared<'_, Mailbox>) -> bool {
///     dma_read!(mailbox, .status) == DONE
/// }
/// ```
#[must_use = "dropping it quarantines the memory if the device may still access it"]
pub struct Shared<'a, T: ?Sized> {
    memory: ManuallyDrop<Memory<'a>>,
    ptr: NonNull<T>,
    is_shown: Atomic<bool>,
}

// SAFETY: It gives copies of plain data, and takes such. Any thread may free the memory.
unsafe impl<T: ?Sized + Send> Send for Shared<'_, T> {}

// SAFETY: As for `SharedView`, which is what a shared reference gives.
unsafe impl<T: ?Sized + Send> Sync for Shared<'_, T> {}

impl<'a, T: ?Sized + KnownSize> Shared<'a, T> {
    /// Returns the bus address of the memory. That of a field is [`SharedView::address`].
    ///
    /// From here on the memory counts as shown: dropping it doesn't free it while the device runs.
    /// Context: any.
    #[inline]
    pub fn address(&self) -> DmaAddr<'_> {
        self.as_view().address()
    }

    /// Returns the bus address of the memory, and doesn't note that it is shown.
    ///
    /// # Safety
    ///
    /// If the device is shown it, the memory must not be dropped before the device was seen to be
    /// done with it, or proven to have stopped.
    #[inline]
    pub(in crate::dma) unsafe fn raw_address(&self) -> DmaAddress {
        self.memory.addr()
    }

    /// Returns the permission that it was allocated with.
    #[cfg(CONFIG_DMA_ENGINE)]
    pub(in crate::dma) fn dma(&self) -> Mapper<'a> {
        self.memory.dma()
    }

    /// Returns whether somebody asked for the address.
    #[cfg(CONFIG_DMA_ENGINE)]
    pub(in crate::dma) fn is_shown(&self) -> bool {
        self.is_shown.load(Relaxed)
    }

    /// Records that the memory isn't shown, though somebody asked for the address.
    ///
    /// # Safety
    ///
    /// The device must not have been shown the address, or must not use it. Nobody may keep it.
    #[cfg(CONFIG_DMA_ENGINE)]
    pub(in crate::dma) unsafe fn forget_address(&self) {
        // INVARIANT: By the safety requirements nobody has the address.
        self.is_shown.store(false, Relaxed);
    }

    /// Returns the CPU's address of the memory, which the device may access at any time.
    #[inline]
    pub(in crate::dma) fn as_ptr(&self) -> *mut T {
        self.ptr.as_ptr()
    }

    /// Returns the size of the memory in bytes, without looking at it.
    #[inline]
    pub(in crate::dma) fn size(&self) -> usize {
        T::size(self.ptr.as_ptr())
    }

    /// Takes the memory back if the device can't access it: if nobody asked for the address, or if
    /// the device didn't run since it was last proven to have stopped.
    ///
    /// Use it after the driver has stopped its device. The contents may be what the device wrote,
    /// so check them. Context: any.
    ///
    /// # Errors
    ///
    /// `self` comes back if the device may access the memory.
    ///
    /// # Examples
    ///
    /// ```
    /// # use kernel::{dma::{Shared, SharedBox}, prelude::*};
    /// /// The driver has stopped the device, and starts it again with an empty table.
    /// fn clear<'a>(table: Shared<'a, [u64]>) -> Result<Shared<'a, [u64]>> {
    ///     let mut table: SharedBox<'a, [u64]> = table.take_back().map_err(|_in_use| EBUSY)?;
    ///
    ///     table.fill(0);
    ///     Ok(table.submit())
    /// }
    /// ```
    pub fn take_back(self) -> Result<SharedBox<'a, T>, Self> {
        if self.is_shown.load(Relaxed) && self.memory.may_be_accessed() {
            return Err(self);
        }

        // SAFETY: By the type invariants nobody has the address. Or somebody had it, in the time
        // for which `self` was borrowed; but the device has let go of all that it was shown then,
        // and was not started since.
        Ok(unsafe { self.complete() })
    }

    /// Takes the memory back from a running device that is done with it.
    ///
    /// For a protocol of the driver's own, in the one file of the driver that has `unsafe` code.
    /// The contents may be what the device wrote, so check them. Context: any.
    ///
    /// # Safety
    ///
    /// 1. The device must be done with the memory: it accesses no byte of it until it is told an
    ///    address of it anew.
    /// 2. The caller must have seen that, in a place that the data sheet names, with a `dma_rmb()`
    ///    after it: [`dma_read!`](super::dma_read) has one, and so has the read of a register.
    /// 3. Nobody may still show the device the address.
    #[inline]
    pub unsafe fn complete(self) -> SharedBox<'a, T> {
        let mut this = ManuallyDrop::new(self);

        // SAFETY: `this` is not dropped and not used afterwards.
        let memory = unsafe { ManuallyDrop::take(&mut this.memory) };

        hand_over(this.ptr.as_ptr().cast());

        // INVARIANT: By the safety requirements no device accesses the memory; any bytes are a
        // valid `T`.
        SharedBox {
            memory: ManuallyDrop::new(memory),
            ptr: this.ptr,
        }
    }
}

impl<'e, T: ?Sized + KnownSize> IoBase<'e> for &'e Shared<'_, T> {
    type Backend = SharedBackend;
    type Target = T;

    #[inline]
    fn as_view(self) -> SharedView<'e, T> {
        // SAFETY: By the type invariants the memory is there until `self` goes, is a `T`, and there
        // are no references to it. The device finds it at this address.
        unsafe { SharedView::new(self.ptr.as_ptr(), self.memory.addr(), &self.is_shown) }
    }
}

impl<T: ?Sized> Drop for Shared<'_, T> {
    fn drop(&mut self) {
        // SAFETY: `self` is not used afterwards.
        let memory = unsafe { ManuallyDrop::take(&mut self.memory) };

        // SAFETY: The CPU accesses it through `self` only; by the type invariants nobody has the
        // address unless `is_shown`.
        unsafe { memory.release_or_keep(self.is_shown.load(Relaxed)) };
    }
}
