// SPDX-License-Identifier: GPL-2.0

//! Coherent memory that user space maps.
//!
//! C header: [`include/linux/dma-mapping.h`](srctree/include/linux/dma-mapping.h)

use super::{
    super::{
        view::{
            SharedBackend,
            SharedView, //
        },
        DmaAddr, //
    },
    user_mappings::UserMappings,
    Shared, //
};
use crate::{
    bindings,
    error::ErrorWith,
    io::IoBase,
    mm::virt::VmaNew,
    page::PAGE_SIZE,
    prelude::*,
    ptr::KnownSize, //
};
use core::mem::ManuallyDrop;

impl<'a, T: ?Sized + KnownSize> Shared<'a, T> {
    /// Lets user space map the memory: see [`UserShared`].
    ///
    /// User space gets whole pages. What is behind the `T` on the last one is zero. Context: may
    /// sleep.
    ///
    /// # Errors
    ///
    /// The memory comes back with
    ///
    /// - [`ENXIO`] if memory of this device can't be mapped (C: `dma_can_mmap()`), or comes from a
    ///   pool of its own;
    /// - [`ENOMEM`], or [`ENFILE`] if the system has too many files.
    ///
    /// # Safety
    ///
    /// From here on until the memory was [taken back](UserShared::into_shared), user space may
    /// write any bytes to it, at any time, and read all of it. So, whatever else is done with the
    /// memory in that time,
    ///
    /// 1. no device must take an address from the memory, nor anything else that decides which
    ///    other memory it accesses: no descriptors, commands, lists or programs;
    /// 2. nothing in the memory may be taken for a proof that a device is done with other memory:
    ///    no completions, counters or bits that say who owns something;
    /// 3. nothing must be there, or be written there, that user space must not know.
    pub unsafe fn allow_mmap(self) -> Result<UserShared<'a, T>, ErrorWith<Self>> {
        let mut this = self;
        let (cpu, size) = (this.ptr.cast::<u8>(), this.size());
        let pages = size.div_ceil(PAGE_SIZE);

        // Not all backends clear what nobody asked for.
        //
        // SAFETY: Coherent memory comes in whole pages, which have an address for the CPU. Nobody
        // knows what is behind the `T`.
        unsafe {
            cpu.add(size).write_bytes(0, pages * PAGE_SIZE - size);
        }

        // SAFETY: There are so many pages. By the safety requirements user space may have them.
        match unsafe { this.memory.allow_mmap(cpu, pages) } {
            // INVARIANT: Just returned, for this memory.
            Ok(mappings) => Ok(UserShared {
                shared: ManuallyDrop::new(this),
                mappings,
            }),
            Err(error) => Err(ErrorWith { error, value: this }),
        }
    }
}

/// Coherent memory that user space, the CPU and a running device all use: a frame buffer, a buffer
/// of samples, a table of what a device measures.
///
/// It is [`Shared`] memory that a driver hands to user space in its `mmap()`. For the driver
/// nothing changes: it reads and writes words, and what it reads is
/// [`Untrusted`](super::super::Untrusted). Whether the device or a process wrote that, it can't
/// know. Since user space writes whatever it likes, not all memory may be mapped:
/// [`Shared::allow_mmap`] is `unsafe`, and says which.
///
/// After [`mmap`](Self::mmap) an area of user space shows the memory. When that was
/// [revoked](Self::revoke) or dropped, or the device was unbound, whoever accesses the area gets
/// `SIGBUS`, and whoever wants to map it gets [`ENODEV`].
///
/// A process keeps its area then, but has no memory there. Nothing brings that back. So the memory
/// is freed as if it had never been mapped, and unbinding a device doesn't wait for processes. The
/// device's stops, suspends and resets don't change what user space sees.
///
/// The pages are mapped when they are accessed, with the caching that the DMA API asks for (C:
/// `dma_mmap_attrs()`, `dma_pgprot()`), one at a time; `MAP_POPULATE` and `mlock()` don't help.
/// They have no owners but this: `get_user_pages()` refuses them, so no system call does direct I/O
/// to them.
///
/// Dropping it takes the memory away from user space, and drops the [`Shared`] inside. Where nobody
/// may sleep, and everywhere in a kernel that doesn't know where that is (without
/// `CONFIG_PREEMPT_COUNT`), user space loses the memory when that is freed, at the latest when the
/// device is unbound: for memory of a DMA engine's channel, when the driver that requested the
/// channel is. Forgetting it leaks the memory, and user space has it until then.
///
/// Context of dropping it: any.
///
/// # Invariants
///
/// `mappings` is what `Memory::allow_mmap()` returned for the memory of `shared`.
///
/// # Examples
///
/// ```
/// # use kernel::{dma::{Mapper, SharedBox, UserShared}, mm::virt::VmaNew, prelude::*};
/// /// A picture that a process draws, and the device shows.
/// fn screen<'a>(dma: Mapper<'a>) -> Result<UserShared<'a, [u32]>> {
///     let screen = SharedBox::slice(dma, 640 * 480, GFP_KERNEL)?.submit();
///
///     // SAFETY:
///     // 1. The device takes pixels from it. It has its address from a register.
///     // 2. It writes nothing there.
///     // 3. As 2.
///     Ok(unsafe { screen.allow_mmap() }?)
/// }
///
/// /// A file's `mmap()`.
/// fn mmap(screen: &UserShared<'_, [u32]>, vma: &VmaNew) -> Result {
///     screen.mmap(vma)
/// }
/// ```
#[must_use = "dropping it takes the memory away from user space"]
pub struct UserShared<'a, T: ?Sized> {
    shared: ManuallyDrop<Shared<'a, T>>,
    mappings: UserMappings,
}

impl<'a, T: ?Sized + KnownSize> UserShared<'a, T> {
    /// Has an area of user space show the memory (C: `dma_mmap_coherent()`, `dma_mmap_attrs()`,
    /// `dma_mmap_wc()`).
    ///
    /// Call it in a file's `mmap()`. The area's offset counts pages of the memory. If the driver
    /// doesn't want it written or executed, it says so by [`VmaNew::try_clear_maywrite`] and
    /// [`VmaNew::try_clear_mayexec`]. Context: may sleep.
    ///
    /// The area doesn't keep that file: when the file's `release()` is called, processes may still
    /// have the memory. Before somebody else gets it who must not share it with them, call
    /// [`into_shared`](Self::into_shared) and [`allow_mmap`](Shared::allow_mmap).
    ///
    /// # Errors
    ///
    /// - [`ENODEV`] if the memory was [revoked](Self::revoke);
    /// - [`ENXIO`] if the area goes beyond the last page of the memory;
    /// - [`EINVAL`] if it is private and can become writable (`MAP_PRIVATE`), or is for pages of
    ///   another kind ([`VmaNew::set_mixedmap`]).
    pub fn mmap(&self, vma: &VmaNew) -> Result {
        self.mappings.map(vma)
    }

    /// Takes the memory away from user space, for good.
    ///
    /// When this returns, no process has the memory, and none gets it. The driver and the device
    /// have it as before. Context: may sleep.
    pub fn revoke(&self) {
        self.mappings.revoke();
    }

    /// [Revokes](Self::revoke) the memory, and returns it.
    ///
    /// It may be mapped anew: whoever had it before doesn't get it again, unless by another
    /// `mmap()`. Context: may sleep.
    pub fn into_shared(self) -> Shared<'a, T> {
        let mut this = ManuallyDrop::new(self);

        // SAFETY: `this` is not dropped, and its parts are not used afterwards.
        let (mut shared, mappings) = unsafe {
            (
                ManuallyDrop::take(&mut this.shared),
                core::ptr::read(&this.mappings),
            )
        };

        shared.memory.forbid_mmap(&mappings);
        shared
    }

    /// Returns the bus address of the memory, as [`Shared::address`]. Context: any.
    #[inline]
    pub fn address(&self) -> DmaAddr<'_> {
        self.shared.address()
    }
}

impl<'e, T: ?Sized + KnownSize> IoBase<'e> for &'e UserShared<'_, T> {
    type Backend = SharedBackend;
    type Target = T;

    #[inline]
    fn as_view(self) -> SharedView<'e, T> {
        let shared: &'e Shared<'_, T> = &self.shared;

        shared.as_view()
    }
}

impl<T: ?Sized> Drop for UserShared<'_, T> {
    fn drop(&mut self) {
        // At once if that can be done here, since what the device may access isn't freed yet.
        //
        // SAFETY: No requirements.
        if !unsafe { bindings::dma_frees_later() } {
            self.mappings.revoke();
        }

        // SAFETY: `self` is not used afterwards.
        unsafe { ManuallyDrop::drop(&mut self.shared) };
    }
}
