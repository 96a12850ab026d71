// SPDX-License-Identifier: GPL-2.0

#include <linux/wait.h>

/*
 * Sleeps until one of two counters is no longer what was seen of it, or for
 * @timeout. Whoever increments a counter wakes its queue afterwards. Both may
 * be the same.
 */
__rust_helper void
rust_helper_wait_queue_sleep_or(struct wait_queue_head *queue,
				const u32 *wakes, u32 seen,
				struct wait_queue_head *other,
				const u32 *other_wakes, u32 other_seen,
				long timeout)
{
	DEFINE_WAIT(wait);
	DEFINE_WAIT(other_wait);

	might_sleep();

	do {
		prepare_to_wait(queue, &wait, TASK_UNINTERRUPTIBLE);
		prepare_to_wait(other, &other_wait, TASK_UNINTERRUPTIBLE);

		/* After the state was set: a wake-up from here on is seen. */
		if (READ_ONCE(*wakes) != seen ||
		    READ_ONCE(*other_wakes) != other_seen)
			break;

		timeout = schedule_timeout(timeout);
	} while (timeout);

	finish_wait(queue, &wait);
	finish_wait(other, &other_wait);
}

/*
 * Wakes all who sleep there. The counter was incremented before, with a full
 * barrier: so who isn't in the queue yet sees that it was, and doesn't sleep.
 */
__rust_helper void
rust_helper_wait_queue_wake_all(struct wait_queue_head *queue)
{
	/* The increment was a full barrier. */
	if (waitqueue_active(queue))
		wake_up_all(queue);
}

/* As the first one, with one counter, and as precise as timers are. */
__rust_helper void
rust_helper_wait_queue_sleep(struct wait_queue_head *queue, const u32 *wakes,
			     u32 seen, s64 nanoseconds)
{
	wait_event_hrtimeout(*queue, READ_ONCE(*wakes) != seen, nanoseconds);
}
