// SPDX-License-Identifier: GPL-2.0

//! Waiting for a device.
//!
//! C header: [`include/linux/wait.h`](srctree/include/linux/wait.h)

use crate::{
    bindings,
    ffi::c_long,
    prelude::*,
    sync::atomic::{
        Acquire,
        Atomic,
        Full, //
    },
    time::{
        msecs_to_jiffies,
        Delta,
        Instant,
        Jiffies,
        Monotonic, //
    },
    types::Opaque, //
};

/// Threads that wait for something to happen to a device.
///
/// An interrupt handler [wakes](Self::wake) them, and so does the device's stop: after that no
/// interrupt comes, so nobody may wait for one. Made by
/// [`Configured::new_waiters`](super::Configured::new_waiters); a device may have several, for
/// instance one a queue.
///
/// Waking is a hint to look again, not a proof, and nothing is counted: a wake-up that comes late,
/// or is meant for somebody else, does no harm.
///
/// # Examples
///
/// ```
/// # use kernel::{dma::Waiters, irq, prelude::*, sync::Arc};
/// struct Handler(Arc<Waiters>);
///
/// impl irq::Handler for Handler {
///     fn handle(&self) -> irq::IrqReturn {
///         self.0.wake();
///         irq::IrqReturn::Handled
///     }
/// }
/// ```
#[pin_data]
pub struct Waiters {
    /// How often they were woken.
    wakes: Atomic<u32>,
    #[pin]
    queue: Opaque<bindings::wait_queue_head>,
}

// SAFETY: A wait queue may be used from any thread, and goes in any.
unsafe impl Send for Waiters {}

// SAFETY: As above.
unsafe impl Sync for Waiters {}

impl Waiters {
    pub(super) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            wakes: Atomic::new(0),
            queue <- Opaque::ffi_init(|queue| {
                // SAFETY: `queue` is valid memory; name and key are static.
                unsafe {
                    bindings::__init_waitqueue_head(
                        queue,
                        c"dma::Waiters".as_char_ptr(),
                        crate::static_lock_class!().as_ptr(),
                    )
                }
            }),
        })
    }

    /// Wakes all who wait.
    ///
    /// C: `wake_up_all()`. Context: any.
    #[inline]
    pub fn wake(&self) {
        // Full: what the caller did before is seen by whoever sees the new number.
        self.wakes.fetch_add(1, Full);

        // SAFETY: The queue is initialised.
        unsafe {
            bindings::__wake_up(
                self.queue.get(),
                // CAST: Two small bits.
                bindings::TASK_NORMAL,
                0,
                core::ptr::null_mut(),
            )
        };
    }

    /// Waits until `look` finds something, for `timeout` at most; looks at once, whenever it is
    /// woken, and at the end.
    ///
    /// `look` should find that the device was stopped, too: nothing else comes then.
    ///
    /// Context: may sleep.
    ///
    /// # Examples
    ///
    /// ```
    /// # use kernel::{dma::Waiters, prelude::*, time::Delta};
    /// fn wait_for_link(waiters: &Waiters, is_up: impl Fn() -> bool) -> Result {
    ///     waiters
    ///         .wait_until(Delta::from_secs(3), || is_up().then_some(()))
    ///         .ok_or(ETIMEDOUT)
    /// }
    /// ```
    pub fn wait_until<T>(&self, timeout: Delta, mut look: impl FnMut() -> Option<T>) -> Option<T> {
        let start = Instant::<Monotonic>::now();

        loop {
            let seen = self.wakes();

            if let Some(found) = look() {
                return Some(found);
            }

            let left = timeout - start.elapsed();

            if left.is_negative() || left.is_zero() {
                return None;
            }

            self.wait(seen, left);
        }
    }

    /// Returns what [`wait`](Self::wait) takes, to be called before looking.
    #[inline]
    pub(super) fn wakes(&self) -> u32 {
        self.wakes.load(Acquire)
    }

    /// Waits until woken since [`wakes`](Self::wakes) returned `seen`, or for `timeout`.
    ///
    /// Context: may sleep.
    pub(super) fn wait(&self, seen: u32, timeout: Delta) {
        // One more than needed, so that a look afterwards comes after the time-out.
        // CAST: Bounded by the time-out, and a time-out beyond 49 days is cut.
        let ms = timeout.as_millis().clamp(0, i64::from(u32::MAX - 1)) as u32 + 1;
        // CAST: As above; where a long has 32 bits, cut to its maximum.
        let jiffies = msecs_to_jiffies(ms).min(c_long::MAX as Jiffies) as c_long;

        // SAFETY: The queue is initialised, the number is an atomic, and both live as long as
        // `self`.
        unsafe {
            bindings::dma_wait_for_wake(
                self.queue.get(),
                self.wakes.as_ptr().cast_const(),
                seen,
                jiffies,
            )
        };
    }
}
