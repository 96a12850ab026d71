// SPDX-License-Identifier: GPL-2.0

//! Waiting for a device.
//!
//! Whoever waits for a device sleeps on two queues: on that of the [`Waiters`] which the interrupt
//! handler wakes, and on the one which the device's stop wakes. So it is enough that the device's
//! record knows the latter, however many [`Waiters`] there are; and a transfer that waits by the
//! [`Waiters`] of another device ends with its own device all the same.
//!
//! C header: [`include/linux/wait.h`](srctree/include/linux/wait.h)

use crate::{
    bindings,
    ffi::c_long,
    prelude::*,
    sync::{
        atomic::{
            Acquire,
            Atomic,
            Full, //
        },
        Arc, //
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

/// A wait queue, and how often it was woken.
#[pin_data]
pub(super) struct WakeQueue {
    wakes: Atomic<u32>,
    #[pin]
    queue: Opaque<bindings::wait_queue_head>,
}

// SAFETY: A wait queue may be used from any thread, and goes in any.
unsafe impl Send for WakeQueue {}

// SAFETY: As above.
unsafe impl Sync for WakeQueue {}

impl WakeQueue {
    // Not inlined: one lockdep class.
    #[inline(never)]
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

    /// Wakes all who wait. Context: any.
    #[inline]
    pub(super) fn wake(&self) {
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

    /// Returns how often it was woken, to be asked before looking.
    #[inline]
    pub(super) fn wakes(&self) -> u32 {
        self.wakes.load(Acquire)
    }

    /// Sleeps for `time`, or until woken since [`wakes`](Self::wakes) returned `seen`. Doesn't
    /// sleep at all if `time` is zero or negative.
    ///
    /// Context: may sleep.
    pub(super) fn sleep(&self, seen: u32, time: Delta) {
        if time <= Delta::ZERO {
            return;
        }

        // SAFETY: The queue is initialised, the number is an atomic, and both live as long as
        // `self`.
        unsafe {
            bindings::dma_sleep_until_wake(
                self.queue.get(),
                self.wakes.as_ptr().cast_const(),
                seen,
                time.as_nanos(),
            )
        };
    }
}

/// How much time is left.
pub(super) struct Deadline {
    start: Instant<Monotonic>,
    timeout: Delta,
}

impl Deadline {
    pub(super) fn new(timeout: Delta) -> Self {
        Self {
            start: Instant::now(),
            timeout,
        }
    }

    /// Returns what is left; [`None`] if that is nothing. Any time-out will do, also a negative
    /// one.
    pub(super) fn left(&self) -> Option<Delta> {
        let left = self
            .timeout
            .as_nanos()
            .saturating_sub(self.start.elapsed().as_nanos());

        (left > 0).then_some(Delta::from_nanos(left))
    }
}

/// What was seen of the queues before looking. See [`Waiters::wakes_or`].
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Seen {
    own: u32,
    stops: u32,
}

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
/// Signals don't end a wait, since the device would go on. So a wait lasts for its time-out if
/// nothing happens; keep that below the two minutes after which the kernel reports a hung task.
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
    #[pin]
    own: WakeQueue,
    /// That of the device, which its stop wakes.
    stops: Arc<WakeQueue>,
}

impl Waiters {
    pub(super) fn new(stops: Arc<WakeQueue>) -> impl PinInit<Self> {
        pin_init!(Self {
            own <- WakeQueue::new(),
            stops,
        })
    }

    /// Wakes all who wait.
    ///
    /// C: `wake_up_all()`. Context: any.
    #[inline]
    pub fn wake(&self) {
        self.own.wake();
    }

    /// Waits until `look` finds something, for `timeout` at most; looks at once, whenever it is
    /// woken, and at the end. With a `timeout` of zero or less it looks once.
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
        let deadline = Deadline::new(timeout);

        loop {
            let left = deadline.left();
            let seen = self.wakes_or(&self.stops);

            if let Some(found) = look() {
                return Some(found);
            }

            self.wait_or(&self.stops, seen, left?);
        }
    }

    /// Returns what [`wait_or`](Self::wait_or) takes, to be asked before looking.
    #[inline]
    pub(super) fn wakes_or(&self, stops: &WakeQueue) -> Seen {
        Seen {
            own: self.own.wakes(),
            stops: stops.wakes(),
        }
    }

    /// Waits until these waiters, or `stops`, were woken since [`wakes_or`](Self::wakes_or)
    /// returned `seen`, or for `timeout`.
    ///
    /// Context: may sleep.
    pub(super) fn wait_or(&self, stops: &WakeQueue, seen: Seen, timeout: Delta) {
        // One more than needed, so that a look afterwards comes after the time-out.
        // CAST: Bounded by the time-out, and a time-out beyond 49 days is cut.
        let ms = timeout.as_millis().clamp(0, i64::from(u32::MAX - 1)) as u32 + 1;
        // CAST: As above; where a long has 32 bits, cut to its maximum.
        let jiffies = msecs_to_jiffies(ms).min(c_long::MAX as Jiffies) as c_long;

        // SAFETY: The queues are initialised, the numbers are atomics, and all of them live as long
        // as `self` and `stops`.
        unsafe {
            bindings::dma_wait_for_wake(
                self.own.queue.get(),
                self.own.wakes.as_ptr().cast_const(),
                seen.own,
                stops.queue.get(),
                stops.wakes.as_ptr().cast_const(),
                seen.stops,
                jiffies,
            )
        };
    }
}
