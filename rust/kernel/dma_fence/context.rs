// SPDX-License-Identifier: GPL-2.0

//! Timelines: jobs that end in the order in which they were submitted.

use super::{
    driver_fence::Memory,
    DriverFence,
    FenceAllocation, //
};
use crate::{
    bindings,
    ffi::c_char,
    prelude::*,
    str::CString,
    sync::{
        aref::{
            ARef,
            AlwaysRefCounted, //
        },
        atomic::{
            Atomic,
            Relaxed, //
        },
        Refcount, //
    },
    types::Opaque, //
};
use core::ptr::NonNull;

/// Numbers the fences of jobs that a device does one after the other.
///
/// Make one for each queue, ring or engine that works by itself. Fences of one context are numbered
/// in the order in which they are made, and have to be signalled in that order: whoever waits for
/// several of them may look at the last one only. A device that completes jobs in any order needs a
/// context for each of the jobs that it has at a time.
///
/// The names are what debugfs and tracepoints show of pending fences. They are copied, and stay as
/// long as there is a pending fence. So the context may go before its fences, in any context.
///
/// # Examples
///
/// ```
/// use kernel::dma_fence::{FenceAllocation, FenceContext};
///
/// let context = FenceContext::new(c"example", c"queue 0")?;
/// let first = context.fence(FenceAllocation::new(GFP_KERNEL)?);
/// let second = context.fence(FenceAllocation::new(GFP_KERNEL)?);
///
/// first.signal();
/// second.signal();
/// # Ok::<(), Error>(())
/// ```
pub struct FenceContext(ARef<Timeline>);

impl FenceContext {
    /// Makes a context, with the name of the driver and that of the timeline.
    ///
    /// C: `dma_fence_context_alloc()`. Context: may sleep.
    ///
    /// # Errors
    ///
    /// [`ENOMEM`].
    pub fn new(driver: &CStr, timeline: &CStr) -> Result<Self> {
        let timeline = KBox::new(
            Timeline {
                rcu: Opaque::uninit(),
                references: Refcount::new(1),
                // SAFETY: No requirements, but that it is more than none.
                context: unsafe { bindings::dma_fence_context_alloc(1) },
                driver: CString::try_from(driver)?,
                name: CString::try_from(timeline)?,
                made: Atomic::new(0),
                signalled: Atomic::new(0),
                disorder: Atomic::new(0),
            },
            GFP_KERNEL,
        )?;

        // SAFETY: A box isn't null. Its reference was counted above, and nobody else has it.
        Ok(Self(unsafe {
            ARef::from_raw(NonNull::new_unchecked(KBox::into_raw(timeline)))
        }))
    }

    /// Makes the fence of a job.
    ///
    /// This can't fail, so it can be done when the job is sure to be submitted. Submit the jobs of
    /// a context in the order in which their fences are made.
    ///
    /// C: `dma_fence_init64()`. Context: any.
    pub fn fence(&self, memory: FenceAllocation) -> DriverFence {
        let seqno = self.0.made.fetch_add(1, Relaxed) + 1;

        DriverFence::new(memory, self.0.clone(), &OPS, self.0.context, seqno)
    }

    /// Returns how many fences were signalled after a later one.
    #[cfg(CONFIG_RUST_DMA_FENCE_KUNIT_TEST)]
    pub(super) fn disorder(&self) -> u64 {
        self.0.disorder.load(Relaxed)
    }
}

/// What all fences of a context have in common.
///
/// C reads the names in an RCU read-side section, of a fence that isn't signalled. Each such fence
/// has a reference, and a grace period goes by after the last one.
///
/// # Invariants
///
/// It is the contents of a [`KBox`], and there until a grace period after its last reference.
#[repr(C)]
pub(super) struct Timeline {
    rcu: Opaque<bindings::callback_head>,
    references: Refcount,
    context: u64,
    driver: CString,
    name: CString,
    /// The numbers of the fences that were made and signalled last. None has number 0.
    made: Atomic<u64>,
    signalled: Atomic<u64>,
    disorder: Atomic<u64>,
}

// SAFETY: Any thread may free it; `rcu` is used by RCU alone, when there is no reference left.
unsafe impl Send for Timeline {}

// SAFETY: The names and the context don't change, the rest is atomic; for `rcu` see above.
unsafe impl Sync for Timeline {}

// SAFETY: A timeline is freed after its last reference.
unsafe impl AlwaysRefCounted for Timeline {
    #[inline]
    fn inc_ref(&self) {
        self.references.inc();
    }

    unsafe fn dec_ref(obj: NonNull<Self>) {
        // SAFETY: The caller gives up a reference to it, hence it is there.
        let timeline = unsafe { obj.as_ref() };

        if timeline.references.dec_and_test() {
            // SAFETY: There is no reference left, so nobody else does this. By the type invariants
            // it is the contents of a box, as `free` requires; `free` is not in a module.
            unsafe { bindings::call_rcu(timeline.rcu.get(), Some(free)) };
        }
    }
}

/// Frees a timeline, after a grace period.
///
/// # Safety
///
/// `head` must be the address of a timeline that nobody uses any more.
unsafe extern "C" fn free(head: *mut bindings::callback_head) {
    // SAFETY: By the safety requirements and the type invariants, this is the contents of a box,
    // which nobody uses. The head is the first thing in it.
    drop(unsafe { KBox::<Timeline>::from_raw(head.cast()) });
}

impl Timeline {
    /// Notes that a fence is about to be signalled, of which others know.
    pub(super) fn note(&self, seqno: u64) {
        if self.signalled.xchg(seqno, Relaxed) > seqno {
            self.report(seqno);
        }
    }

    #[cold]
    fn report(&self, seqno: u64) {
        if self.disorder.fetch_add(1, Relaxed) == 0 {
            pr_warn!(
                "dma_fence: {} {}: {seqno} is signalled after a later one\n",
                &*self.driver,
                &*self.name
            );
        }
    }
}

/// The operations of each fence in Rust. Code and table are the kernel's, not a module's: C may
/// call them for a fence that was forgotten, too. Without `release` and `wait` a fence that is
/// signalled has no operations any more.
static OPS: bindings::dma_fence_ops = bindings::dma_fence_ops {
    get_driver_name: Some(driver_name),
    get_timeline_name: Some(timeline_name),
    ..pin_init::zeroed()
};

/// # Safety
///
/// `fence` must have the operations above, must not have been signalled before this RCU read-side
/// section, and the result must not be used after it.
unsafe extern "C" fn driver_name(fence: *mut bindings::dma_fence) -> *const c_char {
    // SAFETY: By the safety requirements.
    unsafe { Memory::timeline_of(fence) }.driver.as_char_ptr()
}

/// # Safety
///
/// As [`driver_name`].
unsafe extern "C" fn timeline_name(fence: *mut bindings::dma_fence) -> *const c_char {
    // SAFETY: By the safety requirements.
    unsafe { Memory::timeline_of(fence) }.name.as_char_ptr()
}
