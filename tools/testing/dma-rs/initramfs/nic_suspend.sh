#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Suspends the machine while a NIC sends itself frames; all of the way but the idling itself. The
# process that sends them is frozen between two batches: none may be lost.

test=nic_suspend
. /nics.sh

suspend() {
	echo freeze > /sys/power/state
}

set -- $(on_bus)
own "$1" || result "failed: cannot bind $1"

echo 0 > /sys/module/suspend/parameters/pm_test_delay
echo platform > /sys/power/pm_test

before=$(leaked)
works "$1" || result "failed: the device does not work to begin with"
keep_busy "$1" all_there &
transfer=$!
for when in 0 0.1 0.3; do
	rm -f "/tmp/runs-$1"
	within 5 has_run "$1" || result "failed: no frames are sent"
	pause $when
	suspend || result "failed: cannot suspend"
done
rm -f "/tmp/runs-$1"
within 5 has_run "$1" || result "failed: no frames are sent at the end"

echo "$1" > $driver/unbind
finish || result "failed: frames were lost, or others came"
echo "$1" > $driver/bind || result "failed: cannot bind $1 again"
works "$1" || result "failed: the device does not work afterwards"
disown "$1"
[ "$(leaked)" = "$before" ] || result "failed: memory was leaked"

result "passed: 3 times"
