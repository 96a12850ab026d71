// SPDX-License-Identifier: GPL-2.0

//! Memory from the DMA API's allocators, whatever is in it and whoever owns it.

use super::{
    super::{
        super::DmaAddress,
        orphan::{
            put_away,
            Orphan, //
        },
        Mapper, //
    },
    later::{
        Allocation,
        Kind, //
    },
    user_mappings::UserMappings, //
};
use crate::{
    alloc::{
        flags::{
            __GFP_HIGHMEM,
            __GFP_NOWARN,
            __GFP_ZERO, //
        },
        Flags, //
    },
    bindings,
    page::PAGE_SIZE,
    prelude::*, //
};
use core::{
    mem::MaybeUninit,
    ops::BitOr,
    ptr::NonNull, //
};

/// Attributes of coherent memory: how the kernel allocates it, and how the CPU sees it.
///
/// Most memory needs none: see [`SharedBox::new`](super::SharedBox::new). Combine them by `|`.
/// Attributes of mappings have another type, so one that means nothing for an allocation doesn't
/// compile. To keep the kernel from reporting a failure, add [`__GFP_NOWARN`] to the flags.
///
/// # Examples
///
/// ```
/// # use kernel::{dma::{AllocAttrs, Mapper, SharedBox}, prelude::*};
/// /// A picture, which the CPU draws and hardly ever reads.
/// fn frame_buffer<'a>(dma: Mapper<'a>) -> Result<SharedBox<'a, [u32]>> {
///     let attrs = AllocAttrs::WRITE_COMBINE | AllocAttrs::SINGLE_PAGES;
///
///     SharedBox::slice_with(dma, 640 * 480, GFP_KERNEL, attrs)
/// }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AllocAttrs(u32);

impl AllocAttrs {
    /// None.
    pub const NONE: Self = Self(0);

    /// The CPU may collect what it writes, and write it in larger pieces; its reads may be slow
    /// (C: `DMA_ATTR_WRITE_COMBINE`, `dma_alloc_wc()`).
    ///
    /// For memory that the CPU fills and the device reads. It changes nothing if the device is
    /// cache coherent.
    pub const WRITE_COMBINE: Self = Self(bindings::DMA_ATTR_WRITE_COMBINE);

    /// The memory is physically contiguous, even if an IOMMU could join single pages (C:
    /// `DMA_ATTR_FORCE_CONTIGUOUS`).
    pub const FORCE_CONTIGUOUS: Self = Self(bindings::DMA_ATTR_FORCE_CONTIGUOUS);

    /// The kernel takes single pages, and doesn't look for large blocks, which would need fewer
    /// entries in an IOMMU's tables (C: `DMA_ATTR_ALLOC_SINGLE_PAGES`).
    ///
    /// For large memory that is accessed seldom, or in no order.
    pub const SINGLE_PAGES: Self = Self(bindings::DMA_ATTR_ALLOC_SINGLE_PAGES);

    /// The kernel has no address for the memory. For [`DeviceOnly`](super::DeviceOnly) only: no
    /// type that accesses the memory may have it.
    pub(super) const NO_KERNEL_MAPPING: Self = Self(bindings::DMA_ATTR_NO_KERNEL_MAPPING);

    fn as_raw(self) -> c_ulong {
        // CAST: Widening.
        self.0 as c_ulong
    }
}

impl BitOr for AllocAttrs {
    type Output = Self;

    #[inline]
    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// How much is allocated, how, and where a note of it is kept.
pub(super) struct Plan {
    /// In bytes, not less than what was asked for.
    pub(super) size: usize,
    pub(super) flags: Flags,
    place: KBox<MaybeUninit<Allocation>>,
}

impl Plan {
    /// Prepares an allocation of at least `len` bytes.
    ///
    /// # Errors
    ///
    /// [`EINVAL`] if `len` is 0, [`ENOMEM`] if there can't be so much memory, or if there is none
    /// to take a note of it.
    pub(super) fn new(dma: Mapper<'_>, len: usize, mut flags: Flags) -> Result<Self> {
        if len == 0 {
            return Err(EINVAL);
        }

        // The kernel aligns memory as its size is.
        let size = len.max(dma.record().constraints().least_alignment());

        // SAFETY: No requirements.
        let ram = unsafe { bindings::totalram_pages() };

        // The C side would overflow, or complain. CAST: Both have the size of a pointer.
        if size.div_ceil(PAGE_SIZE) > ram as usize {
            return Err(ENOMEM);
        }

        // SAFETY: No requirements.
        let may_block = unsafe { bindings::gfpflags_allow_blocking(flags.as_raw()) };

        // It would complain of so much, too, and of an empty pool for those who can't wait, though
        // it is no mistake to ask.
        if size > PAGE_SIZE << bindings::MAX_PAGE_ORDER || !may_block {
            flags = flags | __GFP_NOWARN;
        }

        // Nobody has an address of high memory, which not all C functions take.
        flags = flags & !__GFP_HIGHMEM;

        Ok(Self {
            size,
            // All of them clear the memory.
            flags: flags | __GFP_ZERO,
            place: KBox::new_uninit(flags & !__GFP_ZERO)?,
        })
    }

    /// Takes a note of memory that was allocated.
    ///
    /// # Safety
    ///
    /// `kind` must be what a C function was called with for the device of `dma`, with
    /// [`size`](Self::size), and has returned, at the bus address `addr`. Nobody else may free the
    /// memory.
    pub(super) unsafe fn done<'a>(
        self,
        dma: Mapper<'a>,
        addr: DmaAddress,
        kind: Kind,
    ) -> Memory<'a> {
        // SAFETY: By the safety requirements the memory was allocated like this. `dma` borrows the
        // bound device, which therefore stays bound as long as the memory lives; who frees it later
        // does so before the record of the device goes.
        let allocation = unsafe { Allocation::write(self.place, dma.as_raw(), self.size, kind) };

        // INVARIANT: By the safety requirements.
        Memory {
            dma,
            addr,
            allocation,
        }
    }
}

/// Memory for a device. Dropping it leaks it: its owner frees it, or puts it away.
///
/// # Invariants
///
/// `allocation` is memory for the device of `dma`, at the bus address `addr`.
pub(super) struct Memory<'a> {
    dma: Mapper<'a>,
    addr: DmaAddress,
    allocation: KBox<Allocation>,
}

impl<'a> Memory<'a> {
    /// Allocates coherent memory that meets the device's constraints. Returns it, and its address
    /// for the CPU. All bytes are zero. With [`AllocAttrs::NO_KERNEL_MAPPING`] the address is none,
    /// and nothing is said of the bytes.
    ///
    /// # Errors
    ///
    /// As [`SharedBox::new`](super::SharedBox::new).
    pub(super) fn new(
        dma: Mapper<'a>,
        len: usize,
        flags: Flags,
        attrs: AllocAttrs,
    ) -> Result<(Self, NonNull<c_void>)> {
        let constraints = dma.record().constraints();

        constraints.admit_table(0, len)?;

        let plan = Plan::new(dma, len, flags)?;
        let mut attrs = attrs.as_raw();
        let mut addr = 0;

        if plan.flags.contains(__GFP_NOWARN) {
            // CAST: Widening.
            attrs |= bindings::DMA_ATTR_NO_WARN as c_ulong;
        }

        // SAFETY: `dma` proves a bound device whose masks are set.
        let cpu = unsafe {
            bindings::dma_alloc_attrs(
                dma.as_raw(),
                plan.size,
                &mut addr,
                plan.flags.as_raw(),
                attrs,
            )
        };
        let handle = NonNull::new(cpu).ok_or(ENOMEM)?;

        // SAFETY: The memory was just allocated like this.
        let memory = unsafe { plan.done(dma, addr, Kind::Coherent { cpu, addr, attrs }) };

        Ok((
            memory.check(|addr| constraints.admit_table(addr, len))?,
            handle,
        ))
    }

    /// Frees memory that was just allocated, and that nobody knows, unless its address is right.
    pub(super) fn check(self, is_right: impl FnOnce(DmaAddress) -> Result) -> Result<Self> {
        if let Err(error) = is_right(self.addr) {
            // SAFETY: Nobody knows the memory yet.
            unsafe { self.free() };
            return Err(error);
        }

        Ok(self)
    }

    pub(super) fn dma(&self) -> Mapper<'a> {
        self.dma
    }

    pub(super) fn kind(&self) -> &Kind {
        self.allocation.kind()
    }

    #[inline]
    pub(super) fn addr(&self) -> DmaAddress {
        self.addr
    }

    /// Lets user space have so many pages at `cpu`, if the device's memory can be mapped.
    ///
    /// Context: may sleep.
    ///
    /// # Errors
    ///
    /// [`ENXIO`] if it can't, [`ENOMEM`], and what else [`UserMappings::new`] says.
    ///
    /// # Safety
    ///
    /// The memory must have so many pages at `cpu`. User space may see and change all of them.
    pub(super) unsafe fn allow_mmap(
        &mut self,
        cpu: NonNull<u8>,
        pages: usize,
    ) -> Result<UserMappings> {
        let dev = self.dma.as_raw();
        let attrs = match *self.kind() {
            Kind::Coherent { attrs, .. } => attrs,
            Kind::Pages { .. } | Kind::Pieces { .. } => return Err(ENXIO),
        };

        // SAFETY: The device is bound, and the memory is there.
        if !unsafe { bindings::dma_mmap_allowed(dev, cpu.as_ptr().cast()) } {
            return Err(ENXIO);
        }

        // SAFETY: By the safety requirements there are so many pages, for user space, too. By the
        // type invariants they were allocated like this. The allocation gets a copy, which it
        // revokes before it frees the memory; the device gets another, for the case that nobody
        // frees it.
        let mappings = unsafe { UserMappings::new(dev, attrs, cpu, pages) }?;

        self.dma.record().later().note(&mappings)?;
        self.allocation.set_mappings(Some(mappings.clone()));
        Ok(mappings)
    }

    /// Takes the memory away from user space, so that it is as if it had never been there.
    ///
    /// Context: may sleep.
    pub(super) fn forbid_mmap(&mut self, mappings: &UserMappings) {
        mappings.revoke();
        self.allocation.set_mappings(None);
    }

    /// Frees the memory: at once, or soon if that can't be done here. Context: any.
    ///
    /// # Safety
    ///
    /// Neither the driver nor the device may access the memory any more. User space may: it loses
    /// the memory before.
    pub(super) unsafe fn free(self) {
        // SAFETY: The record is that of the device. By the safety requirements nobody accesses the
        // memory.
        unsafe { Allocation::free(self.allocation, self.dma.record().later()) };
    }

    /// Returns whether the device may access the memory, if it was shown the address at some time.
    pub(super) fn may_be_accessed(&self) -> bool {
        self.dma.record().may_access()
    }

    /// Frees memory whose owner was dropped, or quarantines it if the device may access it.
    /// Context: any.
    ///
    /// # Safety
    ///
    /// The CPU must not access the memory any more. Unless `is_shown`, the device must not know it.
    #[cold]
    pub(super) unsafe fn release_or_keep(self, is_shown: bool) {
        if !is_shown {
            // SAFETY: By the safety requirements nobody accesses the memory.
            unsafe { self.free() };
            return;
        }

        put_away(self.dma.device(), self.dma.record(), None, self);
    }
}

// SAFETY:
// 1. Memory may be freed in any context, and by any thread.
// 2. It borrows the device.
unsafe impl Orphan for Memory<'_> {
    const ACCIDENT: bool = true;

    fn bytes(&self) -> usize {
        self.allocation.size()
    }

    unsafe fn release(self) {
        // SAFETY: By the safety requirements the device doesn't access the memory. The CPU doesn't,
        // since its owner was dropped.
        unsafe { self.free() };
    }
}
