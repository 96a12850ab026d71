#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Suspends the machine while a device moves data; all of the way but the idling itself. The process
# that waits for the data is frozen first: if the driver does not let it, the transfer ends before
# the device is suspended.

test=suspend
. /transfers.sh

suspend() {
	echo freeze > /sys/power/state
}

for path in $driver/*:*; do
	device=${path##*/}
	break
done
[ -e "$driver/$device" ] || result "failed: no device is bound"

echo 0 > /sys/module/suspend/parameters/pm_test_delay
echo platform > /sys/power/pm_test

lost=0
before=$(leaked)
works "$device" || result "failed: the device does not work to begin with"
for way in read write read write read; do
	disturb $way "$device" suspend
done
[ "$(leaked)" = "$before" ] || result "failed: memory was leaked"

result "passed: 5 times, $lost transfers ended with an error"
