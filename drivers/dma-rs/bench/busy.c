// SPDX-License-Identifier: GPL-2.0
/*
 * Tells for how long the CPU has been busy, in nanoseconds: where instructions
 * are counted, how many it has executed. The file dma_rs_bench_busy in debugfs
 * begins with that when 1 is written to it, and ends with 0.
 *
 * The CPU must not be idle meanwhile. QEMU has the clock of an idle CPU follow
 * its own, and it can't be told how much of that belongs to the work that was
 * waited for. So a thread takes the time that nobody else wants, and counts it.
 */

#include <linux/cleanup.h>
#include <linux/debugfs.h>
#include <linux/kthread.h>
#include <linux/ktime.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/sched.h>
#include <uapi/linux/sched/types.h>

/* The thread looks at the clock so often, unless something else is done. */
#define OFTEN_NS	250

static DEFINE_MUTEX(busy_lock);
static struct dentry *busy_file;
static struct task_struct *busy_idler;
static u64 busy_start;
static u64 busy_unwanted;

static int busy_idle(void *data)
{
	u64 last = ktime_get_ns(), now;

	while (!kthread_should_stop()) {
		now = ktime_get_ns();
		if (now - last < OFTEN_NS)
			WRITE_ONCE(busy_unwanted, busy_unwanted + now - last);
		last = now;
		cond_resched();
	}

	return 0;
}

static void busy_end(void)
{
	if (busy_idler)
		kthread_stop(busy_idler);
	busy_idler = NULL;
}

static int busy_begin(void)
{
	/* It gives way to whoever wakes up. */
	struct sched_attr attr = {
		.size = sizeof(attr),
		.sched_policy = SCHED_IDLE,
	};
	struct task_struct *idler;

	idler = kthread_create(busy_idle, NULL, "dma_rs_bench_busy");
	if (IS_ERR(idler))
		return PTR_ERR(idler);

	sched_setattr_nocheck(idler, &attr);
	busy_unwanted = 0;
	busy_start = ktime_get_ns();
	busy_idler = idler;
	wake_up_process(idler);
	return 0;
}

static int busy_set(void *data, u64 value)
{
	guard(mutex)(&busy_lock);
	busy_end();

	return value ? busy_begin() : 0;
}

static int busy_get(void *data, u64 *value)
{
	guard(mutex)(&busy_lock);
	if (!busy_idler)
		return -EINVAL;

	*value = ktime_get_ns() - busy_start - READ_ONCE(busy_unwanted);
	return 0;
}
DEFINE_DEBUGFS_ATTRIBUTE(busy_fops, busy_get, busy_set, "%llu\n");

static int __init busy_init(void)
{
	busy_file = debugfs_create_file_unsafe("dma_rs_bench_busy", 0600, NULL,
					       NULL, &busy_fops);

	return 0;
}
module_init(busy_init);

static void __exit busy_exit(void)
{
	debugfs_remove(busy_file);
	busy_end();
}
module_exit(busy_exit);

MODULE_AUTHOR("The dma-rs authors");
MODULE_DESCRIPTION("How long the CPU has been busy, for measuring");
MODULE_LICENSE("GPL");
