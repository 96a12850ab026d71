#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# For the tests of what fails for want of memory: they source this.

last=1000

# all_may_fail: allocations of any kind, also those that can wait for memory.
all_may_fail() {
	echo N > $debugfs/failslab/cache-filter
	for kind in failslab fail_page_alloc; do
		echo N > $debugfs/$kind/ignore-gfp-wait
		echo 0 > $debugfs/$kind/verbose
	done
}

# sweep DEVICE: binds the driver, whose folder is $driver, again and again, and makes one allocation
# of its probe fail: the first, then the second, and so on until none is left to fail: that is their
# $number. Each time the probe fails, which $failed counts, or makes do. Leaks show in dma-debug's
# count and in kmemleak.
sweep() {
	device=$1
	all_may_fail

	# The C side forgives a missing entry in /proc/irq, and warns when it removes what isn't
	# there.
	echo "<6>dma-rs-tolerate: WARNING: at remove_proc_entry" > /dev/kmsg

	failed=0
	number=0
	left=0
	while [ "$left" = 0 ]; do
		number=$((number + 1))
		[ $number -lt $last ] || result "failed: no end after $last allocations"

		if [ -e "$driver/$device" ]; then
			echo "$device" > "$driver/unbind" ||
				result "failed: cannot unbind before $number"
		fi

		# From here on in this very process, without a fork: the count is per task.
		echo $number > /proc/self/fail-nth
		{ echo "$device" > "$driver/bind"; } 2> /dev/null
		{ read -r left < /proc/self/fail-nth; } 2> /dev/null || left=0
		{ echo 0 > /proc/self/fail-nth; } 2> /dev/null || echo 0 > /proc/self/fail-nth

		[ -e "$driver/$device" ] || failed=$((failed + 1))
	done

	[ -e "$driver/$device" ] || echo "$device" > "$driver/bind" ||
		result "failed: cannot bind again"
}
