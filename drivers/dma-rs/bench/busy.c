// SPDX-License-Identifier: GPL-2.0
/*
 * Tells for how long the CPUs have been busy, in nanoseconds: where instructions
 * are counted, how many they have executed. The file dma_rs_bench_busy in
 * debugfs.
 */

#include <linux/debugfs.h>
#include <linux/kernel_stat.h>
#include <linux/ktime.h>
#include <linux/module.h>

static struct dentry *busy_file;

static int busy_get(void *data, u64 *value)
{
	unsigned int cpu;

	*value = 0;
	for_each_online_cpu(cpu) {
		u64 idle = get_cpu_idle_time_us(cpu, NULL);

		*value += ktime_get_ns() - idle * NSEC_PER_USEC;
	}

	return 0;
}
DEFINE_DEBUGFS_ATTRIBUTE(busy_fops, busy_get, NULL, "%llu\n");

static int __init busy_init(void)
{
	busy_file = debugfs_create_file("dma_rs_bench_busy", 0400, NULL, NULL,
					&busy_fops);

	return PTR_ERR_OR_ZERO(busy_file);
}
module_init(busy_init);

static void __exit busy_exit(void)
{
	debugfs_remove(busy_file);
}
module_exit(busy_exit);

MODULE_AUTHOR("The dma-rs authors");
MODULE_DESCRIPTION("How long the CPUs have been busy, for measuring");
MODULE_LICENSE("GPL");
