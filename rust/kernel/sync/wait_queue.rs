// SPDX-License-Identifier: GPL-2.0

//! Waiting for something to happen, such as an interrupt.
//!
//! C header: [`include/linux/wait.h`](srctree/include/linux/wait.h)

use super::{
    atomic::{
        Acquire,
        Atomic,
        Full, //
    },
    LockClassKey, //
};
use crate::{
    bindings,
    ffi::c_long,
    prelude::*,
    time::{
        msecs_to_jiffies,
        Delta,
        Instant,
        Jiffies,
        Monotonic, //
    },
    types::Opaque, //
};

/// Creates a [`WaitQueue`] initialiser with the given name and a newly-created lock class.
#[macro_export]
macro_rules! new_wait_queue {
    ($($name:literal)?) => {
        $crate::sync::WaitQueue::new(
            $crate::optional_name!($($name)?),
            $crate::static_lock_class!(),
        )
    };
}
pub use new_wait_queue;

/// A place where threads wait until an interrupt handler, or another thread, wakes them.
///
/// A waiting thread brings a function that looks whether the thing that it waits for has happened.
/// The queue calls that at once, whenever the queue is woken, and when the time is up. So waking is
/// a hint to look again, and nothing is counted: a wake-up that comes early, late, or for somebody
/// else does no harm. For an event that happens once, and is remembered, use
/// [`Completion`](super::Completion). For data under a lock, use [`CondVar`](super::CondVar).
///
/// Signals don't end a wait, since a device would go on. So a wait lasts for its time-out if
/// nothing happens; keep that below the two minutes after which the kernel reports a hung task.
///
/// # Examples
///
/// ```
/// use kernel::{irq, new_wait_queue, sync::{Arc, WaitQueue}, time::Delta};
///
/// struct Handler(Arc<WaitQueue>);
///
/// impl irq::Handler for Handler {
///     fn handle(&self) -> irq::IrqReturn {
///         self.0.wake_all();
///         irq::IrqReturn::Handled
///     }
/// }
///
/// fn wait_for_link(queue: &WaitQueue, is_up: impl Fn() -> bool) -> Result {
///     queue
///         .wait_until(Delta::from_secs(3), || is_up().then_some(()))
///         .ok_or(ETIMEDOUT)
/// }
///
/// let queue = Arc::pin_init(new_wait_queue!("example::link"), GFP_KERNEL)?;
/// let handler = Handler(queue.clone());
///
/// wait_for_link(&queue, || true)?;
/// # Ok::<(), Error>(())
/// ```
#[pin_data]
pub struct WaitQueue {
    /// How often it was woken.
    wakes: Atomic<u32>,
    #[pin]
    queue: Opaque<bindings::wait_queue_head>,
}

// SAFETY: A `struct wait_queue_head` may be used by any thread.
unsafe impl Send for WaitQueue {}

// SAFETY: A `struct wait_queue_head` has a lock of its own.
unsafe impl Sync for WaitQueue {}

impl WaitQueue {
    /// Makes a queue. See [`new_wait_queue!`].
    pub fn new(name: &'static CStr, key: Pin<&'static LockClassKey>) -> impl PinInit<Self> {
        pin_init!(Self {
            wakes: Atomic::new(0),
            // SAFETY: `queue` is valid while the closure is called; `name` and `key` are static.
            queue <- Opaque::ffi_init(|queue| unsafe {
                bindings::__init_waitqueue_head(queue, name.as_char_ptr(), key.as_ptr())
            }),
        })
    }

    /// Wakes all threads that wait.
    ///
    /// They see what the caller did before. If there are none, no lock is taken. C:
    /// `wq_has_sleeper()`, `wake_up_all()`. Context: any; with `PREEMPT_RT`, where the lock sleeps,
    /// not under a raw spinlock, nor in a handler that doesn't run in a thread.
    #[inline]
    pub fn wake_all(&self) {
        // Full: whoever sees the new number sees what the caller did before, and whoever doesn't
        // see it is in the queue already.
        self.wakes.fetch_add(1, Full);

        // SAFETY: `new()` has initialised the queue. The number was incremented.
        unsafe { bindings::wait_queue_wake_all(self.queue.get()) };
    }

    /// Waits until `look` finds something, for `timeout` at most. With a `timeout` of zero or less
    /// it looks once.
    ///
    /// C: `wait_event_timeout()`. Context: may sleep.
    pub fn wait_until<T>(&self, timeout: Delta, look: impl FnMut() -> Option<T>) -> Option<T> {
        self.wait_until_or(None, timeout, look)
    }

    /// As [`wait_until`](Self::wait_until), and also looks whenever `other` is woken.
    ///
    /// For a thread that waits for one of many events of a device, and for the end of all of them.
    ///
    /// Context: may sleep.
    pub fn wait_until_or<T>(
        &self,
        other: Option<&Self>,
        timeout: Delta,
        mut look: impl FnMut() -> Option<T>,
    ) -> Option<T> {
        let other = other.unwrap_or(self);
        let deadline = Deadline::new(timeout);
        let mut left = deadline.all();

        loop {
            let seen = (self.wakes.load(Acquire), other.wakes.load(Acquire));

            if let Some(found) = look() {
                return Some(found);
            }

            self.sleep_or(other, seen, left?);
            // Before looking: a time-out must not hide what happened during that sleep.
            left = deadline.left();
        }
    }

    /// As [`wait_until`](Self::wait_until), and also looks every `interval`. With an `interval` of
    /// zero it looks all the time.
    ///
    /// For devices without an interrupt, where the queue is only woken when they are stopped.
    ///
    /// Context: may sleep.
    pub fn poll_until<T>(
        &self,
        interval: Delta,
        timeout: Delta,
        mut look: impl FnMut() -> Option<T>,
    ) -> Option<T> {
        let deadline = Deadline::new(timeout);
        let mut left = deadline.all();

        loop {
            let seen = self.wakes.load(Acquire);

            if let Some(found) = look() {
                return Some(found);
            }

            self.sleep(seen, interval.min(left?));
            left = deadline.left();
        }
    }

    /// Sleeps until one of the queues was woken since its number of wake-ups was as in `seen`, or
    /// for `timeout`.
    fn sleep_or(&self, other: &Self, seen: (u32, u32), timeout: Delta) {
        // One more than needed, so that a look afterwards comes after the time-out.
        // CAST: Bounded by the time-out, and a time-out beyond 49 days is cut.
        let ms = timeout.as_millis().clamp(0, i64::from(u32::MAX - 1)) as u32 + 1;
        // CAST: As above; where a long has 32 bits, cut to its maximum.
        let jiffies = msecs_to_jiffies(ms).min(c_long::MAX as Jiffies) as c_long;

        // SAFETY: `new()` has initialised the queues; the numbers are atomics; all of them live as
        // long as `self` and `other`.
        unsafe {
            bindings::wait_queue_sleep_or(
                self.queue.get(),
                self.wakes.as_ptr().cast_const(),
                seen.0,
                other.queue.get(),
                other.wakes.as_ptr().cast_const(),
                seen.1,
                jiffies,
            )
        };
    }

    /// Sleeps until the queue was woken since its number of wake-ups was `seen`, or for `time`.
    /// Doesn't sleep at all if `time` is zero or negative.
    fn sleep(&self, seen: u32, time: Delta) {
        if time <= Delta::ZERO {
            return;
        }

        // SAFETY: As in `sleep_or()`.
        unsafe {
            bindings::wait_queue_sleep(
                self.queue.get(),
                self.wakes.as_ptr().cast_const(),
                seen,
                time.as_nanos(),
            )
        };
    }
}

/// How much time is left.
struct Deadline {
    start: Instant<Monotonic>,
    timeout: Delta,
}

impl Deadline {
    fn new(timeout: Delta) -> Self {
        Self {
            start: Instant::now(),
            timeout,
        }
    }

    /// Returns the time-out, or [`None`] if there is none. A thread that doesn't get a CPU before
    /// it has looked once still sleeps, and looks once more, as in C.
    fn all(&self) -> Option<Delta> {
        (self.timeout > Delta::ZERO).then_some(self.timeout)
    }

    /// Returns what is left, or [`None`] if that is nothing. Any time-out will do, also a negative
    /// one.
    fn left(&self) -> Option<Delta> {
        let left = self
            .timeout
            .as_nanos()
            .saturating_sub(self.start.elapsed().as_nanos());

        (left > 0).then_some(Delta::from_nanos(left))
    }
}
