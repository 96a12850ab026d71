// SPDX-License-Identifier: GPL-2.0

//! Fences as their driver has them.

use super::{
    context::Timeline,
    Fence, //
};
use crate::{
    alloc::Flags,
    bindings,
    prelude::*,
    sync::aref::ARef,
    types::Opaque, //
};
use core::{
    mem::MaybeUninit,
    ptr::NonNull, //
};

/// A fence in Rust, which C frees by `kfree_rcu()`, without a destructor.
#[repr(C)]
pub(super) struct Memory {
    /// The first thing, since C frees the memory by its address.
    fence: Opaque<bindings::dma_fence>,
    /// Counted until the fence is signalled.
    timeline: NonNull<Timeline>,
}

impl Memory {
    /// Returns the timeline of a fence.
    ///
    /// # Safety
    ///
    /// - The fence must be in a `Memory`.
    /// - It must not be signalled before the RCU read-side section or the reference to it from
    ///   which this is called, and the result must not be used after that.
    pub(super) unsafe fn timeline_of<'a>(fence: *mut bindings::dma_fence) -> &'a Timeline {
        // SAFETY: The fence is the first thing in a `Memory`. Until it is signalled, its timeline
        // is counted, and a grace period goes by afterwards.
        unsafe { (*fence.cast::<Self>()).timeline.as_ref() }
    }
}

/// The memory for a fence.
///
/// When a fence is signalled, and memory reclaim waits for it, there may be no memory. So allocate
/// it where that may fail, early: before the job is submitted, and before other locks are taken.
///
/// # Examples
///
/// See [`FenceContext`](super::FenceContext).
pub struct FenceAllocation(KBox<MaybeUninit<Memory>>);

impl FenceAllocation {
    /// Allocates the memory. Context: as `flags` say.
    ///
    /// # Errors
    ///
    /// [`ENOMEM`].
    #[inline]
    pub fn new(flags: Flags) -> Result<Self> {
        Ok(Self(KBox::new_uninit(flags)?))
    }
}

/// The fence of a job, as the driver has it that was given the job.
///
/// The driver calls [`signal`](Self::signal) or [`signal_with_error`](Self::signal_with_error) when
/// the device has completed the job. Either takes the fence, so it is signalled once, in one place.
///
/// A fence that is dropped is signalled with [`ECANCELED`], since those who wait must not hang when
/// a driver gives a job up: they may hold locks, or be in memory reclaim. To them the job is
/// *over*. So drop a fence only where you know that the device doesn't access the memory of the job
/// any more. The easiest way is to keep the fence with that memory: see [`Fenced`](super::Fenced).
///
/// A fence that is forgotten is never signalled, and its memory is leaked.
///
/// Context of dropping it: as [`signal`](Self::signal).
///
/// # Invariants
///
/// - `memory` is an initialised fence, which isn't signalled.
/// - This has a reference to that fence and to its timeline.
///
/// # Examples
///
/// ```
/// use kernel::dma_fence::{FenceAllocation, FenceContext};
///
/// let context = FenceContext::new(c"example", c"queue 0")?;
/// let job = context.fence(FenceAllocation::new(GFP_KERNEL)?);
/// let fence = job.fence();
///
/// job.signal_with_error(EIO);
/// assert_eq!(fence.status(), Some(Err(EIO)));
///
/// let given_up = context.fence(FenceAllocation::new(GFP_KERNEL)?);
/// let fence = given_up.fence();
///
/// drop(given_up);
/// assert_eq!(fence.status(), Some(Err(ECANCELED)));
/// # Ok::<(), Error>(())
/// ```
#[must_use = "a fence that is dropped is signalled, with an error"]
pub struct DriverFence {
    pub(super) memory: NonNull<Memory>,
    pub(super) outcome: Result,
}

// SAFETY: Any thread may signal a fence, and give references to it and to its timeline back.
unsafe impl Send for DriverFence {}

// SAFETY: A shared `DriverFence` only counts references.
unsafe impl Sync for DriverFence {}

impl DriverFence {
    /// Makes a fence.
    pub(super) fn new(
        memory: FenceAllocation,
        timeline: ARef<Timeline>,
        ops: &'static bindings::dma_fence_ops,
        context: u64,
        seqno: u64,
    ) -> Self {
        let memory = KBox::into_raw(memory.0.write(Memory {
            fence: Opaque::uninit(),
            timeline: ARef::into_raw(timeline),
        }));

        // SAFETY: The memory was just allocated, and `Memory` is what `ops` find the names in. They
        // may be called at once, for a tracepoint, when the timeline is set already. C frees the
        // memory by `kfree()`, which is how a `KBox` is freed. Without a lock it uses its own.
        unsafe {
            bindings::dma_fence_init64(
                (*memory).fence.get(),
                ops,
                core::ptr::null_mut(),
                context,
                seqno,
            )
        };

        // INVARIANT: It was just initialised, which counts a reference to it; the timeline's is
        // that of the argument.
        Self {
            // SAFETY: A box isn't null.
            memory: unsafe { NonNull::new_unchecked(memory) },
            outcome: Err(ECANCELED),
        }
    }

    #[inline]
    fn as_raw(&self) -> *mut bindings::dma_fence {
        // The fence is the first thing in the memory.
        self.memory.as_ptr().cast()
    }

    /// Returns the fence, for those who are to wait for the job.
    ///
    /// From here on the [rules](super) hold until the fence is signalled.
    ///
    /// C: `dma_fence_get()`. Context: any.
    #[inline]
    pub fn fence(&self) -> ARef<Fence> {
        // SAFETY: By the type invariants this is an initialised fence, to which `self` has a
        // reference. A `Fence` is a transparent wrapper of it.
        unsafe { self.memory.cast::<Fence>().as_ref() }.into()
    }

    /// Says that the device has completed the job.
    ///
    /// It wakes those who wait, and calls the callbacks. If a later fence of the context was
    /// signalled before, and others know of both, that is logged, once for a context.
    ///
    /// C: `dma_fence_signal()`. Context: any, but for a [callback](super::FenceCallback) of a
    /// fence.
    #[inline]
    pub fn signal(mut self) {
        self.outcome = Ok(());
    }

    /// As [`signal`](Self::signal), of a job that has failed.
    ///
    /// Those who wait see the error: [`EIO`] for a device that reports one, [`ETIME`] for a job
    /// that took too long, [`ENODATA`] for one that produced nothing, [`ECANCELED`] if all jobs of
    /// the context were given up. The device must be done with the job, whatever went wrong.
    ///
    /// C: `dma_fence_set_error()`. Context: as [`signal`](Self::signal).
    #[inline]
    pub fn signal_with_error(mut self, error: Error) {
        self.outcome = Err(error);
    }
}

impl Drop for DriverFence {
    fn drop(&mut self) {
        let fence = self.as_raw();

        // SAFETY: By the type invariants the fence is in a `Memory` and initialised, there is a
        // reference to it and to the timeline, and it isn't signalled yet.
        unsafe {
            // Nobody can tell the order of what nobody else knows.
            if bindings::dma_fence_is_shared(fence) {
                Memory::timeline_of(fence).note((*fence).seqno);
            }

            if let Err(error) = self.outcome {
                bindings::dma_fence_set_error(fence, error.to_errno());
            }

            bindings::dma_fence_signal(fence);
        }

        // After the fence was signalled: C may have asked for the names before.
        //
        // SAFETY: By the type invariants `self` has a reference to the timeline, which isn't used
        // after this.
        drop(unsafe { ARef::from_raw((*self.memory.as_ptr()).timeline) });

        // SAFETY: By the type invariants `self` has a reference to the fence, which isn't used
        // after this.
        unsafe { bindings::dma_fence_put(fence) };
    }
}
