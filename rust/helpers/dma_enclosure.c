// SPDX-License-Identifier: GPL-2.0

#include <linux/notifier.h>
#include <linux/wait.h>

/*
 * Sleeps until one of two counters is no longer what was seen of it, or for
 * @timeout. Whoever increments a counter wakes its queue afterwards.
 */
__rust_helper void
rust_helper_dma_wait_for_wake(struct wait_queue_head *queue, const u32 *wakes,
			      u32 seen, struct wait_queue_head *stop_queue,
			      const u32 *stops, u32 seen_stops, long timeout)
{
	DEFINE_WAIT(wait);
	DEFINE_WAIT(stop_wait);

	might_sleep();

	do {
		prepare_to_wait(queue, &wait, TASK_UNINTERRUPTIBLE);
		prepare_to_wait(stop_queue, &stop_wait, TASK_UNINTERRUPTIBLE);

		/* After the state was set: a wake-up from here on is seen. */
		if (READ_ONCE(*wakes) != seen || READ_ONCE(*stops) != seen_stops)
			break;

		timeout = schedule_timeout(timeout);
	} while (timeout);

	finish_wait(queue, &wait);
	finish_wait(stop_queue, &stop_wait);
}

/* As above, with one counter, and as precise as timers are. */
__rust_helper void
rust_helper_dma_sleep_until_wake(struct wait_queue_head *queue,
				 const u32 *wakes, u32 seen, s64 nanoseconds)
{
	wait_event_hrtimeout(*queue, READ_ONCE(*wakes) != seen, nanoseconds);
}

__rust_helper int rust_helper_notifier_from_errno(int err)
{
	return notifier_from_errno(err);
}
