// SPDX-License-Identifier: GPL-2.0

//! Fences: how a driver tells others that a device is done with a job.
//!
//! A fence stands for a job that a device was given, for instance a transfer. It is signalled once,
//! when the job is over, and that stays so. Other drivers, and by way of them user space, get hold
//! of the fence when the job is submitted, and wait for it before they use the result.
//!
//! | who | type | what it does |
//! |---|---|---|
//! | the driver of the device | [`FenceContext`] | names a timeline: jobs that end in their order |
//! | | [`FenceAllocation`] | is the memory for a fence, allocated where that may fail |
//! | | [`DriverFence`] | is signalled by its only owner, once in any case |
//! | | [`Fenced`] | is memory for DMA that carries the fence of its job |
//! | | [`Signalling`] | tells lockdep which code must not wait for fences |
//! | others | [`Fence`] | says whether the job is over and how it ended; is waited for |
//! | | [`FenceCallback`] | is called when the fence is signalled |
//!
//! Within one driver there is hardly ever a need for a fence: what gives memory to a device says by
//! itself when the device is done, and gives the memory back.
//!
//! # Rules
//!
//! Whoever gets a fence may wait for it in memory reclaim. So from when a fence can be found by
//! others, until it is signalled, the driver must neither allocate memory with [`GFP_KERNEL`] nor
//! take a lock under which anybody waits for fences or allocates like that. [`Signalling`] has
//! lockdep check this. A device that hangs must be noticed by a time-out, and be stopped, so that
//! each fence is signalled in reasonable time.
//!
//! `Documentation/rust/dma/dma_fence.rst` teaches the use, and
//! `Documentation/driver-api/dma-buf.rst` has the rules in full.
//!
//! C header: [`include/linux/dma-fence.h`](srctree/include/linux/dma-fence.h)

use crate::{
    bindings,
    error::to_result,
    ffi::{
        c_int,
        c_long, //
    },
    prelude::*,
    sync::aref::AlwaysRefCounted,
    time::{
        msecs_to_jiffies,
        Delta,
        Jiffies, //
    },
    types::Opaque, //
};
use core::ptr::NonNull;

mod callback;
mod context;
mod driver_fence;
mod fenced;
mod signalling;
#[cfg(CONFIG_RUST_DMA_FENCE_KUNIT_TEST)]
mod tests;

pub use self::{
    callback::FenceCallback,
    context::FenceContext,
    driver_fence::{
        DriverFence,
        FenceAllocation, //
    },
    fenced::Fenced,
    signalling::Signalling, //
};

/// Says whether a job of a device is over, for those who wait for it.
///
/// The driver of the device signals it, by a [`DriverFence`]. Those who wait have an [`ARef`] of a
/// `Fence`, and may keep it as long as they like: it outlives its [`FenceContext`], the device and
/// the driver's module.
///
/// That a fence is signalled with an error means that the job failed or was given up. Either way
/// the job is over, and the device is done with it.
///
/// [`ARef`]: crate::sync::aref::ARef
///
/// # Invariants
///
/// It is a `struct dma_fence` that was initialised.
///
/// # Examples
///
/// ```
/// use kernel::{
///     dma_fence::{Fence, FenceAllocation, FenceContext},
///     time::Delta,
/// };
///
/// /// Waits for a job of another driver.
/// fn wait_for_job(fence: &Fence) -> Result {
///     // The first `?` is for a job that takes too long, the second one for a job that failed.
///     fence.wait(Delta::from_millis(500)).ok_or(ETIMEDOUT)?
/// }
///
/// let context = FenceContext::new(c"example", c"queue 0")?;
/// let job = context.fence(FenceAllocation::new(GFP_KERNEL)?);
/// let fence = job.fence();
///
/// assert_eq!(fence.status(), None);
/// job.signal();
/// assert_eq!(fence.status(), Some(Ok(())));
/// wait_for_job(&fence)?;
/// # Ok::<(), Error>(())
/// ```
#[repr(transparent)]
pub struct Fence(Opaque<bindings::dma_fence>);

// SAFETY: Any thread may give a reference to a `struct dma_fence` back.
unsafe impl Send for Fence {}

// SAFETY: A `struct dma_fence` has a lock of its own, and its flags are atomic.
unsafe impl Sync for Fence {}

// SAFETY: `dma_fence_get()` and `dma_fence_put()` count references, and each `struct dma_fence` is
// freed when there is none left.
unsafe impl AlwaysRefCounted for Fence {
    #[inline]
    fn inc_ref(&self) {
        // SAFETY: By the type invariants the fence is initialised, and since it is borrowed, there
        // is a reference to it.
        unsafe { bindings::dma_fence_get(self.as_raw()) };
    }

    #[inline]
    unsafe fn dec_ref(obj: NonNull<Self>) {
        // SAFETY: The caller gives up a reference to the fence, hence it is there.
        unsafe { bindings::dma_fence_put(obj.cast().as_ptr()) };
    }
}

impl Fence {
    #[inline]
    fn as_raw(&self) -> *mut bindings::dma_fence {
        self.0.get()
    }

    /// Returns whether the job is over, and how it ended: [`None`] while it is pending.
    ///
    /// C: `dma_fence_get_status()`. Context: any.
    #[inline]
    pub fn status(&self) -> Option<Result> {
        // SAFETY: By the type invariants the fence is initialised.
        outcome(unsafe { bindings::dma_fence_status(self.as_raw()) })
    }

    /// Sleeps until the job is over, for `timeout` at most, and returns how it ended: [`None`] if
    /// it is still pending. With a `timeout` of zero or less it looks once.
    ///
    /// Keep `timeout` below the two minutes after which the kernel reports a hung task.
    ///
    /// C: `dma_fence_wait_timeout()`. Context: may sleep. Not while a [`Signalling`] is there,
    /// which lockdep reports.
    pub fn wait(&self, timeout: Delta) -> Option<Result> {
        self.sleep(false, timeout);

        // Not what the function returned: a time-out must not hide what has just happened.
        self.status()
    }

    /// As [`wait`](Self::wait), and a signal ends it, too: for system calls.
    ///
    /// The job goes on, so the driver of the device loses nothing.
    ///
    /// C: `dma_fence_wait_timeout()`. Context: as [`wait`](Self::wait).
    ///
    /// # Errors
    ///
    /// [`ERESTARTSYS`] if the thread got a signal before the job was over.
    pub fn wait_interruptible(&self, timeout: Delta) -> Result<Option<Result>> {
        // CAST: An error is small.
        to_result(self.sleep(true, timeout).min(0) as c_int)?;
        Ok(self.status())
    }

    /// Returns what is left of the time-out, in jiffies, or an error.
    fn sleep(&self, interruptible: bool, timeout: Delta) -> c_long {
        let jiffies = if timeout <= Delta::ZERO {
            0
        } else {
            // One more than needed, since a part of a millisecond is cut.
            // CAST: Positive; a time-out beyond 49 days is cut.
            let ms = timeout.as_millis().min(i64::from(u32::MAX - 1)) as u32 + 1;

            // CAST: Where a long has 32 bits, cut to its maximum.
            msecs_to_jiffies(ms).min(c_long::MAX as Jiffies) as c_long
        };

        // SAFETY: By the type invariants the fence is initialised, and since it is borrowed, there
        // is a reference to it. The time-out isn't negative.
        unsafe { bindings::dma_fence_wait_timeout(self.as_raw(), interruptible, jiffies) }
    }
}

/// Returns what a status in C stands for: nothing, success, or an error.
#[inline]
fn outcome(status: c_int) -> Option<Result> {
    (status != 0).then(|| to_result(status))
}
