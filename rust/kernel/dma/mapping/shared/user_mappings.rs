// SPDX-License-Identifier: GPL-2.0

//! Where coherent memory is in the page tables of user space, and how it gets out of there again.
//!
//! `dma_mmap_attrs()` fills an area while `mmap()` is still making it. From then on until the
//! kernel has linked the area to its file, nobody can find it. If the device were unbound in that
//! time, the area would keep pages that are freed. So areas are empty at first here, and page
//! faults fill them: a fault holds a lock, under which it is known whether the memory is still
//! there.
//!
//! The areas of one memory belong to a file that was made for it, whatever file user space has
//! opened. So they can be emptied without those of other memory, at the same offsets of the same
//! device file, losing their pages. The file is there as long as an area is, also when areas are
//! split and processes fork. That makes `open` and `close` of areas unnecessary.
//!
//! C header: [`include/linux/mm.h`](srctree/include/linux/mm.h)

use crate::{
    bindings,
    error::from_err_ptr,
    fs::{
        file,
        File, //
    },
    mm::virt::{
        flags,
        VmaNew, //
    },
    new_mutex,
    page::PAGE_SIZE,
    prelude::*,
    sync::{
        aref::ARef,
        Mutex, //
    },
    types::ForeignOwnable, //
};
use core::ptr::NonNull;

/// Memory that user space may have.
///
/// # Invariants
///
/// There are so many pages at `cpu`, which were allocated for the bound device `dev`, with `attrs`.
/// Nobody frees them before this is gone from its [`State`] and from all page tables.
struct Pages {
    dev: *mut bindings::device,
    attrs: c_ulong,
    cpu: NonNull<u8>,
    count: usize,
}

// SAFETY: Any thread may use the device and map the pages, whose contents aren't looked at.
unsafe impl Send for Pages {}

/// What a file knows: the memory, until it was revoked.
///
/// A fault holds the lock while it fills a page table. So whoever has taken the pages out finds in
/// the page tables whatever any fault has put there, and no fault puts anything there later.
#[pin_data]
struct State {
    #[pin]
    pages: Mutex<Option<Pages>>,
}

type Owned = Pin<KBox<State>>;

/// The mappings of coherent memory in user space: a file to which they belong, and no other.
///
/// # Invariants
///
/// The file was made by [`UserMappings::new`], so its private data is a [`State`], which stays
/// where it is as long as the file does.
#[derive(Clone)]
pub(in crate::dma) struct UserMappings(ARef<File>);

impl UserMappings {
    /// Allows that memory of so many pages is mapped. It isn't yet.
    ///
    /// Context: may sleep.
    ///
    /// # Errors
    ///
    /// [`ENOMEM`], and what else making a file says: [`ENFILE`] for too many.
    ///
    /// # Safety
    ///
    /// - There must be so many pages of coherent memory at `cpu`, all of which user space may see
    ///   and change. They must have been allocated for the bound device `dev`, with `attrs`.
    /// - [`revoke`](Self::revoke) must have returned before they are freed, and before the device
    ///   is unbound.
    #[inline(never)]
    pub(super) unsafe fn new(
        dev: *mut bindings::device,
        attrs: c_ulong,
        cpu: NonNull<u8>,
        count: usize,
    ) -> Result<Self> {
        // INVARIANT: By the safety requirements.
        let pages = Some(Pages {
            dev,
            attrs,
            cpu,
            count,
        });
        let state: Owned = KBox::pin_init(
            pin_init!(State {
                pages <- new_mutex!(pages, "dma::UserMappings"),
            }),
            GFP_KERNEL,
        )?;
        let private = state.into_foreign();

        // CAST: A small number.
        let flags = file::flags::O_RDWR as c_int;

        // SAFETY: The operations are there for ever, and are made for such private data.
        let file =
            from_err_ptr(unsafe { bindings::dma_mmap_file(file_operations(), private, flags) })
                .inspect_err(|_| {
                    // SAFETY: It was made by `into_foreign()`, and there is no file that has it.
                    drop(unsafe { Owned::from_foreign(private) });
                })?;

        // A file isn't null.
        let file = NonNull::new(file.cast()).ok_or(ENOMEM)?;

        // INVARIANT: Just made.
        // SAFETY: The reference that the file came with is ours. Nobody has a descriptor of it, so
        // there is no `fdget_pos()`.
        Ok(Self(unsafe { ARef::from_raw(file) }))
    }

    fn state(&self) -> &State {
        // SAFETY: By the type invariants the private data is a `State`, and stays so as long as we
        // have a reference to the file.
        unsafe { Owned::borrow((*self.0.as_ptr()).private_data) }.get_ref()
    }

    /// Returns whether nothing can be mapped any more.
    pub(super) fn is_revoked(&self) -> bool {
        self.state().pages.lock().is_none()
    }

    /// Has an area of user space show the memory, from the page of the area's offset on.
    ///
    /// Context: may sleep.
    ///
    /// # Errors
    ///
    /// - [`ENODEV`] after [`revoke`](Self::revoke);
    /// - [`ENXIO`] if the area doesn't lie in the memory;
    /// - [`EINVAL`] if it is private and may be written, or has pages of another kind.
    #[inline(never)]
    pub(super) fn map(&self, vma: &VmaNew) -> Result {
        let pages = self.state().pages.lock();
        let Some(pages) = &*pages else {
            return Err(ENODEV);
        };

        // The kernel would copy pages for whoever writes, and would use the area's offset for
        // something else.
        if vma.flags() & (flags::SHARED | flags::MAYWRITE) == flags::MAYWRITE {
            return Err(EINVAL);
        }

        if vma.flags() & flags::MIXEDMAP != 0 {
            return Err(EINVAL);
        }

        // SAFETY: The area is being made, so nobody changes it.
        let first = unsafe { (*vma.as_ptr()).vm_pgoff };
        let len = (vma.end() - vma.start()) / PAGE_SIZE;

        match first.checked_add(len) {
            Some(end) if end <= pages.count => {}
            _ => return Err(ENXIO),
        }

        // SAFETY: The area is being made by `mmap()`, with that lock held. By the type invariants
        // the device is bound, and the memory was allocated with these attributes. The file is one
        // of ours, as the operations want it.
        unsafe {
            bindings::dma_mmap_prepare(
                pages.dev,
                vma.as_ptr(),
                self.0.as_ptr(),
                vm_operations(),
                pages.attrs,
            );
        }

        Ok(())
    }

    /// Takes the memory away from user space, for good. When this returns, no page table has it.
    ///
    /// Whoever accesses it gets `SIGBUS`, or `EFAULT` in a system call. Context: may sleep.
    #[inline(never)]
    pub(super) fn revoke(&self) {
        // Taken first, so that no fault comes after what follows.
        *self.state().pages.lock() = None;

        // If somebody else has taken it, the page tables may still have it. A length of 0 stands
        // for all that is there.
        //
        // SAFETY: The file has an address space as long as we have a reference to the file.
        unsafe { bindings::unmap_mapping_range((*self.0.as_ptr()).f_mapping, 0, 0, 1) };
    }
}

/// # Safety
///
/// The kernel must call it, for an area that [`UserMappings::map`] has prepared.
unsafe extern "C" fn fault(vmf: *mut bindings::vm_fault) -> bindings::vm_fault_t {
    // Not under the lock: to find memory may take long, and who revokes waits for the lock.
    //
    // SAFETY: By the safety requirements it is about a fault.
    let error = unsafe { bindings::dma_mmap_make_room(vmf) };

    if error != 0 {
        return error;
    }

    // SAFETY: By the safety requirements the area's file is one of a `UserMappings`, and is there
    // as long as the area is.
    let state = unsafe { Owned::borrow(bindings::dma_mmap_private(vmf)) };
    let pages = state.pages.lock();
    let (dev, attrs, cpu, count) = match &*pages {
        Some(pages) => (pages.dev, pages.attrs, pages.cpu.as_ptr(), pages.count),
        None => (core::ptr::null_mut(), 0, core::ptr::null_mut(), 0),
    };

    // The lock is held meanwhile.
    //
    // SAFETY: By the type invariants there are so many pages, which stay as long as the lock is
    // held, and thereafter until they are out of the page tables. So does the device. The area
    // shows page frames, and isn't one whose pages are copied when they are written: `map()` has
    // seen to that. Of no pages nothing is looked at.
    unsafe { bindings::dma_mmap_fault(vmf, dev, attrs, cpu.cast(), count) }
}

/// # Safety
///
/// The kernel must call it, when the last reference to a file of a [`UserMappings`] is gone.
unsafe extern "C" fn release(_inode: *mut bindings::inode, file: *mut bindings::file) -> c_int {
    // SAFETY: By the safety requirements the private data was made by `into_foreign()`, and nobody
    // borrows it any more.
    drop(unsafe { Owned::from_foreign((*file).private_data) });
    0
}

const fn file_operations() -> &'static bindings::file_operations {
    const FILE: bindings::file_operations = bindings::file_operations {
        release: Some(release),
        ..pin_init::zeroed()
    };

    &FILE
}

const fn vm_operations() -> &'static bindings::vm_operations_struct {
    const AREA: bindings::vm_operations_struct = bindings::vm_operations_struct {
        fault: Some(fault),
        ..pin_init::zeroed()
    };

    &AREA
}
