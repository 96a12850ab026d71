// SPDX-License-Identifier: GPL-2.0

//! What lockdep is told.

use crate::{
    bindings,
    types::NotThreadSafe, //
};

/// Tells lockdep that the code meanwhile is needed to signal a fence.
///
/// Such code must not wait for fences, nor take a lock under which anybody does, nor allocate with
/// [`GFP_KERNEL`](crate::alloc::flags::GFP_KERNEL). Lockdep can't know which code that is, and a
/// deadlock shows up only under load. With this guard lockdep reports it the first time that the
/// code runs. It covers all that the driver does from when others can find a fence until it is
/// signalled: the end of submission, work that completes jobs, what notices that a device hangs.
/// Interrupt handlers, and what runs under a spinlock, need no guard.
///
/// Guards may be nested. In a kernel without lockdep, they are nothing.
///
/// C: `dma_fence_begin_signalling()`, and `dma_fence_end_signalling()` when it is dropped.
///
/// # Examples
///
/// ```
/// use kernel::dma_fence::{DriverFence, FenceAllocation, FenceContext, Signalling};
///
/// /// What a driver's work does when the device has completed a job.
/// fn complete(job: DriverFence) {
///     let _guard = Signalling::begin();
///
///     job.signal();
/// }
///
/// let context = FenceContext::new(c"example", c"queue 0")?;
///
/// complete(context.fence(FenceAllocation::new(GFP_KERNEL)?));
/// # Ok::<(), Error>(())
/// ```
#[must_use = "without a name it ends at once"]
pub struct Signalling {
    /// Whether there is nothing to be undone.
    nothing: bool,
    _thread: NotThreadSafe,
}

impl Signalling {
    /// Begins such code. Context: any.
    #[inline]
    pub fn begin() -> Self {
        Self {
            // SAFETY: No requirements.
            nothing: unsafe { bindings::dma_fence_begin_signalling() },
            _thread: NotThreadSafe,
        }
    }

    /// Returns whether lockdep was told.
    #[cfg(CONFIG_RUST_DMA_FENCE_KUNIT_TEST)]
    pub(super) fn is_told(&self) -> bool {
        !self.nothing
    }
}

impl Drop for Signalling {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: This is what `dma_fence_begin_signalling()` returned, in this thread.
        unsafe { bindings::dma_fence_end_signalling(self.nothing) };
    }
}
