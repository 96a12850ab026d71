// SPDX-License-Identifier: GPL-2.0

//! Allocations of the DMA API, and where they can be freed.
//!
//! C's functions that free them may unmap memory, and complain if interrupts are off. But drivers
//! drop their values wherever they like. So what is dropped where nobody may sleep is put on a
//! list, and a work item frees it soon. At the latest it is freed at unbind, before the device
//! loses its DMA.

use super::{
    super::super::DmaAddress,
    user_mappings::UserMappings, //
};
use crate::{
    bindings,
    impl_has_work,
    new_mutex,
    new_spinlock_irq,
    new_work,
    prelude::*,
    sync::{
        Arc,
        Mutex,
        SpinLockIrq, //
    },
    workqueue::{
        Queue,
        Work,
        WorkItem, //
    }, //
};
use core::mem::MaybeUninit;

/// What was allocated, and how it is freed.
pub(super) enum Kind {
    /// By `dma_alloc_attrs()`.
    Coherent {
        cpu: *mut c_void,
        addr: DmaAddress,
        attrs: c_ulong,
    },
    /// By `dma_alloc_pages()`.
    Pages {
        page: *mut bindings::page,
        addr: DmaAddress,
        direction: bindings::dma_data_direction,
    },
    /// By `dma_alloc_noncontiguous()` and `dma_vmap_noncontiguous()`.
    Pieces {
        table: *mut bindings::sg_table,
        cpu: *mut c_void,
        direction: bindings::dma_data_direction,
    },
}

/// An allocation, and a place in the list of those that are freed later.
///
/// Dropping it leaks the memory.
///
/// # Invariants
///
/// `size` and `kind` are what the C function was called with and has returned, for `dev`, which
/// stays bound until this is freed. The memory was not freed yet.
pub(super) struct Allocation {
    next: Option<KBox<Allocation>>,
    dev: *mut bindings::device,
    size: usize,
    kind: Kind,
    /// Where user space has the memory, if it may.
    mappings: Option<UserMappings>,
}

// SAFETY: Any thread may free it.
unsafe impl Send for Allocation {}

// SAFETY: A shared reference shows numbers, and a file, which any thread may use.
unsafe impl Sync for Allocation {}

impl Allocation {
    /// # Safety
    ///
    /// - `dev` must be a device that is bound, and stays so until the allocation is freed.
    /// - The others must be what the C function was called with for it, and has returned.
    /// - Nobody else may free the memory.
    pub(super) unsafe fn write(
        place: KBox<MaybeUninit<Self>>,
        dev: *mut bindings::device,
        size: usize,
        kind: Kind,
    ) -> KBox<Self> {
        // INVARIANT: By the safety requirements.
        KBox::write(
            place,
            Self {
                next: None,
                dev,
                size,
                kind,
                mappings: None,
            },
        )
    }

    pub(super) fn kind(&self) -> &Kind {
        &self.kind
    }

    pub(super) fn size(&self) -> usize {
        self.size
    }

    /// Says where user space has the memory, so that it loses the memory before that is freed.
    pub(super) fn set_mappings(&mut self, mappings: Option<UserMappings>) {
        self.mappings = mappings;
    }

    /// Frees the memory, or has it freed where that can be done.
    ///
    /// # Safety
    ///
    /// - `later` must be that of the device.
    /// - Neither the driver nor the device may access the memory any more. User space may.
    pub(super) unsafe fn free(this: KBox<Self>, later: &Arc<Later>) {
        // SAFETY: No requirements.
        if unsafe { bindings::dma_frees_later() } {
            later.push(this);
        } else {
            // SAFETY: By the safety requirements nobody accesses the memory.
            unsafe { Self::free_here(this) };
        }
    }

    /// Frees the memory. Context: may sleep.
    ///
    /// # Safety
    ///
    /// Neither the driver nor the device may access the memory any more.
    unsafe fn free_here(this: KBox<Self>) {
        let Self {
            dev,
            size,
            ref kind,
            ref mappings,
            ..
        } = *this;

        if let Some(mappings) = mappings {
            mappings.revoke();
        }

        // SAFETY: By the type invariants this is how the memory was allocated, the device is bound,
        // and the memory wasn't freed yet: `this` is gone afterwards. By the safety requirements
        // nobody accesses it, and user space just lost it.
        unsafe {
            match *kind {
                Kind::Coherent { cpu, addr, attrs } => {
                    bindings::dma_free_attrs(dev, size, cpu, addr, attrs);
                }
                Kind::Pages {
                    page,
                    addr,
                    direction,
                } => bindings::dma_noncoherent_free(dev, size, page, addr, direction),
                Kind::Pieces {
                    table,
                    cpu,
                    direction,
                } => bindings::dma_pieces_free(dev, size, table, cpu, direction),
            }
        }
    }
}

/// What of a bound device is to be freed where one may sleep, and taken away from user space.
#[pin_data]
pub(in crate::dma) struct Later {
    #[pin]
    list: SpinLockIrq<Option<KBox<Allocation>>>,
    /// Held while allocations are freed that were taken off the list.
    #[pin]
    freeing: Mutex<()>,
    /// Where user space has memory of the device, also what was forgotten or leaked.
    #[pin]
    mappings: Mutex<KVec<UserMappings>>,
    #[pin]
    work: Work<Self>,
}

impl_has_work! {
    impl HasWork<Self> for Later { self.work }
}

impl Later {
    pub(in crate::dma) fn new() -> Result<Arc<Self>> {
        Arc::pin_init(
            pin_init!(Self {
                list <- new_spinlock_irq!(None),
                freeing <- new_mutex!(()),
                mappings <- new_mutex!(KVec::new(), "dma::Later::mappings"),
                work <- new_work!("dma::Later"),
            }),
            GFP_KERNEL,
        )
    }

    /// Puts an allocation on the list, which nobody accesses any more. Context: any.
    #[cold]
    fn push(self: &Arc<Self>, mut allocation: KBox<Allocation>) {
        let mut list = self.list.lock();

        allocation.next = list.take();
        *list = Some(allocation);
        drop(list);

        // If it is queued already, it hasn't looked at the list yet.
        let _ = queue().enqueue(self.clone());
    }

    /// Notes where user space may get memory of the device. Context: may sleep.
    ///
    /// # Errors
    ///
    /// [`ENOMEM`].
    pub(super) fn note(&self, mappings: &UserMappings) -> Result {
        let mut all = self.mappings.lock();

        all.retain(|other| !other.is_revoked());
        all.push(mappings.clone(), GFP_KERNEL)?;
        Ok(())
    }

    /// Takes all memory of the device away from user space, and frees what is on the list: before
    /// the device is unbound.
    ///
    /// Nothing may be noted or put there any more. Context: may sleep.
    pub(in crate::dma) fn end(&self) {
        self.revoke_all();
        self.flush();
    }

    fn revoke_all(&self) {
        let all = core::mem::take(&mut *self.mappings.lock());

        for mappings in &all {
            mappings.revoke();
        }
    }

    /// Frees what is on the list. When this returns, nothing is left of what was put there before.
    ///
    /// Context: may sleep.
    pub(in crate::dma) fn flush(&self) {
        let _guard = self.freeing.lock();

        loop {
            let mut list = self.list.lock();
            let Some(mut first) = list.take() else {
                return;
            };

            *list = first.next.take();
            drop(list);

            // SAFETY: `free()` put it on the list: nobody accesses the memory.
            unsafe { Allocation::free_here(first) };
        }
    }
}

/// Returns the work queue of the kernel for what doesn't take long.
fn queue() -> &'static Queue {
    // SAFETY: The kernel makes it at boot, and never destroys it.
    unsafe { Queue::from_raw(bindings::system_percpu_wq) }
}

impl WorkItem for Later {
    type Pointer = Arc<Self>;

    fn run(this: Arc<Self>) {
        this.flush();
    }
}
