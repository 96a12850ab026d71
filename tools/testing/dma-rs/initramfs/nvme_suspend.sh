#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Suspends the machine while an NVMe device reads blocks for which nobody waits yet; all of the way
# but the idling itself. Each read is done, or comes back as cancelled.

test=nvme_suspend
. /nvmes.sh

set -- $(in_slots)
own "$1" || result "failed: cannot bind $1"
ahead=$debugfs/dma_rs_nvme-$1/ahead
stoppable=no
! may_interrupt "$1" || stoppable=yes

# outcome: waits for the reads, and adds up what came of them.
outcome() {
	done=0
	cancelled=0
	while read -r name value; do
		eval "$name=$value"
	done < "$ahead"
	[ $((done + cancelled)) = 64 ] ||
		result "failed: of 64 reads, $done are done, $cancelled cancelled"
	total=$((total + cancelled))
}

echo 0 > /sys/module/suspend/parameters/pm_test_delay
echo platform > /sys/power/pm_test

total=0
before=$(leaked)
works "$1" || result "failed: the device does not work to begin with"
for when in 0 0.01 0.03 0.05 0.1; do
	read_ahead "$1"
	[ $stoppable = yes ] || outcome
	pause $when
	echo freeze > /sys/power/state || result "failed: cannot suspend"
	[ $stoppable = no ] || outcome
done
[ $stoppable = no ] || [ $total -gt 0 ] || result "failed: nothing was in flight"
works "$1" || result "failed: the device does not work afterwards"
disown "$1"
[ "$(leaked)" = "$before" ] || result "failed: memory was leaked"

result "passed: 5 times, $total reads cancelled"
