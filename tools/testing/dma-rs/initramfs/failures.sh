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

# sweep: carries out `attempt` again and again, and makes one allocation of it fail: the first, then
# the second, and so on until none is left to fail: that is their $number. Each time it fails,
# which $failed counts, or makes do: `is_done` says which. Before each time `undo` takes it back.
# These are functions of the caller's; `attempt` must not start a process.
sweep() {
	all_may_fail
	# To open this would be one of the allocations.
	exec 8> /dev/null
	failed=0
	number=0
	left=0
	while [ "$left" = 0 ]; do
		number=$((number + 1))
		[ $number -lt $last ] || result "failed: no end after $last allocations"
		undo || result "failed: cannot take it back before $number"

		# From here on in this very process, without a fork: the count is per task.
		echo $number > /proc/self/fail-nth
		attempt 2>&8
		{ read -r left < /proc/self/fail-nth; } 2>&8 || left=0
		{ echo 0 > /proc/self/fail-nth; } 2>&8 || echo 0 > /proc/self/fail-nth

		is_done || failed=$((failed + 1))
	done
	is_done || attempt || result "failed: cannot do it again"
}

# sweep_probe DEVICE: so does binding the driver, whose folder is $driver. Leaks show in dma-debug's
# count and in kmemleak.
sweep_probe() {
	device=$1
	# The C side forgives a missing entry in /proc/irq, and warns when it removes what isn't
	# there.
	echo "<6>dma-rs-tolerate: WARNING: at remove_proc_entry" > /dev/kmsg

	attempt() {
		echo "$device" > "$driver/bind"
	}
	undo() {
		! is_done || echo "$device" > "$driver/unbind"
	}
	is_done() {
		[ -e "$driver/$device" ]
	}
	sweep
}
