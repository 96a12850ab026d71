// SPDX-License-Identifier: GPL-2.0

//! Coherent memory that the CPU doesn't access.

use super::{
    super::{
        DmaAddr,
        Mapper, //
    },
    memory::Memory,
    AllocAttrs, //
};
use crate::{
    alloc::Flags,
    prelude::*,
    sync::atomic::{
        Atomic,
        Relaxed, //
    }, //
};
use core::mem::ManuallyDrop;

/// Coherent memory for a device alone: the CPU has no address for it.
///
/// Use it for large buffers that only hardware reads and writes, such as the memory in which a
/// firmware works. It takes no address space of the kernel, and the driver can't access it by
/// mistake. Nobody clears the memory: until the device has written it, it may read there what an
/// earlier owner left.
///
/// Dropping it is safe at any time, and in any context, as with [`Shared`](super::Shared).
///
/// # Invariants
///
/// This owns `memory`, which nobody has an address of, except the device if `is_shown`.
///
/// # Examples
///
/// ```
/// # use kernel::{dma::{AllocAttrs, DeviceOnly, Mapper}, prelude::*};
/// fn scratch<'a>(dma: Mapper<'a>) -> Result<DeviceOnly<'a>> {
///     let scratch = DeviceOnly::new(dma, 1 << 20, GFP_KERNEL, AllocAttrs::SINGLE_PAGES)?;
///
///     assert_eq!(scratch.address().len(), 1 << 20);
///     Ok(scratch)
/// }
/// ```
#[must_use = "dropping it quarantines the memory if the device may still access it"]
pub struct DeviceOnly<'a> {
    memory: ManuallyDrop<Memory<'a>>,
    len: usize,
    is_shown: Atomic<bool>,
}

impl<'a> DeviceOnly<'a> {
    /// Allocates `len` bytes (C: `dma_alloc_attrs()` with `DMA_ATTR_NO_KERNEL_MAPPING`).
    ///
    /// Context: any that `flags` allow.
    ///
    /// # Errors
    ///
    /// As [`SharedBox::new`](super::SharedBox::new), and [`EINVAL`] if `len` is 0.
    pub fn new(dma: Mapper<'a>, len: usize, flags: Flags, attrs: AllocAttrs) -> Result<Self> {
        let attrs = attrs | AllocAttrs::NO_KERNEL_MAPPING;
        // What C returns as an address need not be one.
        let (memory, _handle) = Memory::new(dma, len, flags, attrs)?;

        // INVARIANT: The memory was just allocated.
        Ok(Self {
            memory: ManuallyDrop::new(memory),
            len,
            is_shown: Atomic::new(false),
        })
    }

    /// Returns the bus address of the memory.
    ///
    /// From here on the memory counts as shown: dropping it doesn't free it while the device runs.
    /// Context: any.
    #[inline]
    pub fn address(&self) -> DmaAddr<'_> {
        // INVARIANT: Noted before the address is handed out.
        self.is_shown.store(true, Relaxed);

        // SAFETY: By the type invariants the memory is allocated until `self` goes, with so many
        // bytes.
        unsafe { DmaAddr::new(self.memory.addr(), self.len) }
    }
}

impl Drop for DeviceOnly<'_> {
    fn drop(&mut self) {
        // SAFETY: `self` is not used afterwards.
        let memory = unsafe { ManuallyDrop::take(&mut self.memory) };

        // SAFETY: The CPU can't access it; by the type invariants the device doesn't know it unless
        // `is_shown`.
        unsafe { memory.release_or_keep(self.is_shown.load(Relaxed)) };
    }
}
