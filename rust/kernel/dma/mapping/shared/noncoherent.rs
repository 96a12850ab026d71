// SPDX-License-Identifier: GPL-2.0

//! Cached memory that the kernel allocates and maps for a device, and that is synced as buffers
//! are.

use super::{
    super::{
        barrier::loads_before_stores,
        streaming::hand_over,
        CpuWrites,
        Direction,
        DmaAddr,
        Mapper, //
    },
    later::Kind,
    memory::{
        Memory,
        Plan, //
    }, //
};
use crate::{
    alloc::Flags,
    bindings,
    page::PAGE_SIZE,
    prelude::*,
    sync::atomic::{
        Atomic,
        Relaxed, //
    }, //
};
use core::{
    marker::PhantomData,
    mem::ManuallyDrop,
    ptr::NonNull, //
};

/// Mapped memory. Its owner frees it, or puts it away.
///
/// # Invariants
///
/// `memory` was allocated with the direction `D`, and has at least `len` initialised bytes at
/// `cpu`. It isn't coherent memory.
struct Inner<'a, D: Direction> {
    memory: Memory<'a>,
    cpu: NonNull<u8>,
    len: usize,
    _direction: PhantomData<D>,
}

impl<D: Direction> Inner<'_, D> {
    /// Makes the CPU see what the device wrote.
    ///
    /// # Safety
    ///
    /// The device must be done with the memory.
    unsafe fn sync_for_cpu(&mut self) {
        let (dev, direction) = (self.memory.dma().as_raw(), D::DATA_DIRECTION.into());

        if D::DEVICE_WRITES {
            // SAFETY: By the type invariants the memory is mapped like this. By the safety
            // requirement the device is done with it.
            unsafe {
                match *self.memory.kind() {
                    Kind::Pieces { table, cpu, .. } => {
                        bindings::dma_pieces_sync_for_cpu(dev, table, cpu, self.len, direction);
                    }
                    _ => bindings::dma_sync_single_for_cpu(
                        dev,
                        self.memory.addr(),
                        self.len,
                        direction,
                    ),
                }
            }
        }

        hand_over(self.cpu.as_ptr());
    }

    /// Makes the device see what the CPU wrote.
    fn sync_for_device(&mut self) {
        let (dev, direction) = (self.memory.dma().as_raw(), D::DATA_DIRECTION.into());

        hand_over(self.cpu.as_ptr());

        // SAFETY: By the type invariants the memory is mapped like this.
        unsafe {
            match *self.memory.kind() {
                Kind::Pieces { table, cpu, .. } => {
                    bindings::dma_pieces_sync_for_device(dev, table, cpu, self.len, direction);
                }
                _ => bindings::dma_sync_single_for_device(
                    dev,
                    self.memory.addr(),
                    self.len,
                    direction,
                ),
            }
        }
    }
}

/// Cached memory that the kernel has allocated and mapped for the device, and that the CPU owns.
///
/// Use it for large buffers that live long. The device can address the memory, so it is never
/// bounced. The CPU has it in its caches, unlike [`Shared`](super::Shared) memory on machines that
/// aren't cache coherent. It has the states of a [`StreamingBox`](super::super::StreamingBox),
/// which is for buffers that come from elsewhere: [`submit`](Self::submit) syncs the memory and
/// gives it to the device.
///
/// Dropping it frees the memory (C: `dma_free_pages()`, `dma_free_noncontiguous()`), in any
/// context, as with [`SharedBox`](super::SharedBox). Forgetting it leaks the memory.
///
/// # Invariants
///
/// No device accesses the memory, and the CPU sees what was last written there.
///
/// # Examples
///
/// ```
/// # use kernel::{dma::{Mapper, Noncoherent, NoncoherentBox, ToDevice}, prelude::*};
/// /// A frame that is shown for a while. An IOMMU makes one piece of it. The constraints say that
/// /// the device takes segments of 4 MiB.
/// fn picture<'a>(dma: Mapper<'a>) -> Result<Noncoherent<'a, ToDevice>> {
///     let mut picture = NoncoherentBox::in_pieces(dma, 4 << 20)?;
///
///     picture.bytes_mut().fill(0x80);
///     Ok(picture.submit())
/// }
/// ```
#[must_use = "dropping it frees the memory"]
pub struct NoncoherentBox<'a, D: Direction> {
    inner: ManuallyDrop<Inner<'a, D>>,
    /// Whether the device hasn't owned the memory yet. Then the CPU's writes, by which it was
    /// cleared, may still be in its caches.
    is_fresh: bool,
}

// SAFETY: It owns plain bytes, and any thread may free them.
unsafe impl<D: Direction> Send for NoncoherentBox<'_, D> {}

// SAFETY: A shared reference only reads.
unsafe impl<D: Direction> Sync for NoncoherentBox<'_, D> {}

impl<'a, D: Direction> NoncoherentBox<'a, D> {
    /// Allocates `len` bytes in one piece, all of which are zero (C: `dma_alloc_pages()`,
    /// `dma_alloc_noncoherent()`).
    ///
    /// The memory meets the device's [`Constraints`](super::super::Constraints), with the coherent
    /// mask. Context: any that `flags` allow.
    ///
    /// # Errors
    ///
    /// - [`EINVAL`] if `len` is 0, or if the memory breaks a constraint;
    /// - [`EOVERFLOW`] if it is longer than the longest segment of the constraints;
    /// - [`ENOMEM`], also on a bus that has no such memory.
    pub fn new(dma: Mapper<'a>, len: usize, flags: Flags) -> Result<Self> {
        let constraints = dma.record().constraints();

        constraints.admit_len(len)?;

        let plan = Plan::new(dma, len, flags)?;
        let direction = D::DATA_DIRECTION.into();
        let mut addr = 0;

        // SAFETY: `dma` proves a bound device whose masks are set.
        let page = unsafe {
            bindings::dma_noncoherent_alloc(
                dma.as_raw(),
                plan.size,
                &mut addr,
                direction,
                plan.flags.as_raw(),
            )
        };

        if page.is_null() {
            return Err(ENOMEM);
        }

        // SAFETY: The memory was just allocated like this.
        let memory = unsafe {
            plan.done(
                dma,
                addr,
                Kind::Pages {
                    page,
                    addr,
                    direction,
                },
            )
        };

        // SAFETY: The page is valid.
        let cpu = unsafe { bindings::dma_page_address(page) };

        Self::from_parts(memory, cpu, len)
    }

    /// Allocates `len` bytes, in pieces if there is an IOMMU, which makes them contiguous for the
    /// device (C: `dma_alloc_noncontiguous()`, `dma_vmap_noncontiguous()`).
    ///
    /// So it may find memory where [`new`](Self::new) finds none in one piece. All bytes are zero,
    /// and the memory meets the device's constraints. For the device it is one segment, whose
    /// length the constraints limit to 64 KiB unless they say otherwise. Context: may sleep.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new).
    pub fn in_pieces(dma: Mapper<'a>, len: usize) -> Result<Self> {
        let constraints = dma.record().constraints();

        constraints.admit_len(len)?;

        let plan = Plan::new(dma, len, GFP_KERNEL)?;
        // SAFETY: `dma` leads to a valid `struct device`.
        let longest = unsafe { bindings::dma_get_max_seg_size(dma.as_raw()) };

        // The table has one segment of whole pages. C has lengths of an `int` when it flushes
        // caches. CAST: Widening.
        if plan.size.next_multiple_of(PAGE_SIZE) > longest as usize
            || c_int::try_from(plan.size).is_err()
        {
            return Err(EOVERFLOW);
        }

        let direction = D::DATA_DIRECTION.into();

        // SAFETY: `dma` proves a bound device whose masks are set.
        let table = unsafe {
            bindings::dma_pieces_alloc(dma.as_raw(), plan.size, direction, plan.flags.as_raw())
        };

        if table.is_null() {
            return Err(ENOMEM);
        }

        // SAFETY: The table was just made.
        let cpu = unsafe { bindings::dma_pieces_vmap(dma.as_raw(), plan.size, table) };

        if cpu.is_null() {
            // SAFETY: It was just made like this, and nobody knows it.
            unsafe {
                bindings::dma_pieces_free(dma.as_raw(), plan.size, table, cpu, direction);
            }
            return Err(ENOMEM);
        }

        // SAFETY: The table is valid, and has one segment for the device.
        let addr = unsafe { bindings::sg_dma_address((*table).sgl) };

        // SAFETY: The memory was just allocated, and mapped for the CPU, like this.
        let memory = unsafe {
            plan.done(
                dma,
                addr,
                Kind::Pieces {
                    table,
                    cpu,
                    direction,
                },
            )
        };

        Self::from_parts(memory, cpu, len)
    }

    /// `memory` must have `len` initialised bytes at `cpu`, which nobody else knows.
    fn from_parts(memory: Memory<'a>, cpu: *mut c_void, len: usize) -> Result<Self> {
        let constraints = memory.dma().record().constraints();
        let memory = memory.check(|addr| {
            if cpu.is_null() {
                return Err(ENOMEM);
            }

            constraints.admit(addr, len)
        })?;

        // INVARIANT: All of it was allocated, with this direction, and cleared. No device was told
        // the address.
        Ok(Self {
            inner: ManuallyDrop::new(Inner {
                memory,
                cpu: NonNull::new(cpu.cast()).ok_or(ENOMEM)?,
                len,
                _direction: PhantomData,
            }),
            is_fresh: true,
        })
    }

    /// Returns the bytes, for reading. Context: any.
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: By the type invariants there are so many initialised bytes, which no device
        // accesses.
        unsafe { core::slice::from_raw_parts(self.inner.cpu.as_ptr(), self.inner.len) }
    }

    /// Gives the memory to the device, and makes it see what the CPU wrote
    /// (C: `dma_sync_single_for_device()`).
    ///
    /// The device isn't told. Memory that is new is synced; later only where the CPU may write.
    /// Context: any.
    pub fn submit(self) -> Noncoherent<'a, D> {
        let mut this = ManuallyDrop::new(self);

        // SAFETY: `this` is not dropped and not used afterwards.
        let mut inner = unsafe { ManuallyDrop::take(&mut this.inner) };

        if D::DEVICE_WRITES {
            // The device may write from here on, so the CPU must have read before.
            loads_before_stores();
        }

        if this.is_fresh || D::CPU_WRITES {
            inner.sync_for_device();
        } else {
            hand_over(inner.cpu.as_ptr());
        }

        // INVARIANT: The CPU's accesses are over and synced; nobody has asked for the address.
        Noncoherent {
            inner: ManuallyDrop::new(inner),
            is_shown: Atomic::new(false),
        }
    }
}

impl<D: CpuWrites> NoncoherentBox<'_, D> {
    /// Returns the bytes, for writing. Context: any.
    #[inline]
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: As in `bytes()`; `&mut self` excludes other accesses of the CPU.
        unsafe { core::slice::from_raw_parts_mut(self.inner.cpu.as_ptr(), self.inner.len) }
    }
}

impl<D: Direction> Drop for NoncoherentBox<'_, D> {
    fn drop(&mut self) {
        // SAFETY: `self` is not used afterwards.
        let inner = unsafe { ManuallyDrop::take(&mut self.inner) };

        // SAFETY: By the type invariants no device accesses the memory; the CPU doesn't any more.
        unsafe { inner.memory.free() };
    }
}

/// Cached memory that the kernel has allocated and mapped for the device, and that the device owns.
///
/// It has an [`address`](Self::address), and no bytes. Dropping it is safe at any time, and in any
/// context, as with [`Shared`](super::Shared). Forgetting it leaks the memory.
///
/// # Invariants
///
/// The CPU doesn't access the memory. Unless `is_shown`, nobody has the address.
///
/// # Examples
///
/// ```
/// # use kernel::{dma::{FromDevice, Mapper, Noncoherent, NoncoherentBox}, prelude::*};
/// fn record<'a>(dma: Mapper<'a>) -> Result<Noncoherent<'a, FromDevice>> {
///     let track = NoncoherentBox::new(dma, 64 << 10, GFP_KERNEL)?.submit();
///
///     assert_eq!(track.address().len(), 64 << 10);
///     Ok(track)
/// }
/// ```
#[must_use = "dropping it quarantines the memory if the device may still access it"]
pub struct Noncoherent<'a, D: Direction> {
    inner: ManuallyDrop<Inner<'a, D>>,
    is_shown: Atomic<bool>,
}

// SAFETY: Any thread may free the memory, and nobody accesses it.
unsafe impl<D: Direction> Send for Noncoherent<'_, D> {}

// SAFETY: A shared reference gives the address only.
unsafe impl<D: Direction> Sync for Noncoherent<'_, D> {}

impl<'a, D: Direction> Noncoherent<'a, D> {
    /// Returns the bus address of the memory.
    ///
    /// From here on the memory counts as shown: dropping it doesn't free it while the device runs.
    /// Context: any.
    #[inline]
    pub fn address(&self) -> DmaAddr<'_> {
        // INVARIANT: Noted before the address is handed out.
        self.is_shown.store(true, Relaxed);

        // SAFETY: The memory is mapped until `self` goes, and has so many bytes.
        unsafe { DmaAddr::new(self.inner.memory.addr(), self.inner.len) }
    }

    /// Takes the memory back if the device can't access it, as
    /// [`Shared::take_back`](super::Shared::take_back) does. Context: any.
    ///
    /// # Errors
    ///
    /// `self` comes back if the device may access the memory.
    pub fn take_back(self) -> Result<NoncoherentBox<'a, D>, Self> {
        if self.is_shown.load(Relaxed) && self.inner.memory.may_be_accessed() {
            return Err(self);
        }

        // SAFETY: By the type invariants nobody has the address. Or somebody had it, in the time
        // for which `self` was borrowed; but the device has let go of all that it was shown then,
        // and was not started since.
        Ok(unsafe { self.complete() })
    }

    /// Takes the memory back from a device that is done with it, and makes the CPU see what it
    /// wrote (C: `dma_sync_single_for_cpu()`).
    ///
    /// For a protocol of the driver's own, in the one file of the driver that has `unsafe` code.
    /// Context: any.
    ///
    /// # Safety
    ///
    /// As for [`Shared::complete`](super::Shared::complete).
    pub unsafe fn complete(self) -> NoncoherentBox<'a, D> {
        let mut this = ManuallyDrop::new(self);

        // SAFETY: `this` is not dropped and not used afterwards.
        let mut inner = unsafe { ManuallyDrop::take(&mut this.inner) };

        // SAFETY: By the safety requirements the device is done with the memory.
        unsafe { inner.sync_for_cpu() };

        // INVARIANT: The device is done, and the CPU sees what it wrote.
        NoncoherentBox {
            inner: ManuallyDrop::new(inner),
            is_fresh: false,
        }
    }
}

impl<D: Direction> Drop for Noncoherent<'_, D> {
    fn drop(&mut self) {
        // SAFETY: `self` is not used afterwards.
        let inner = unsafe { ManuallyDrop::take(&mut self.inner) };

        // SAFETY: The CPU doesn't access it; by the type invariants nobody has the address unless
        // `is_shown`.
        unsafe { inner.memory.release_or_keep(self.is_shown.load(Relaxed)) };
    }
}
