#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Binds the edu driver again and again, and makes one allocation of its probe fail: the first, then
# the second, and so on until none is left to fail. Each time the probe fails or makes do, and when
# all is over the device works. Leaks show in dma-debug's count and in kmemleak.

driver=/sys/bus/pci/drivers/dma_rs_edu
faults=/sys/kernel/debug
last=1000

result() {
	echo "<6>dma-rs-tolerate-end" > /dev/kmsg
	echo "<6>dma-rs: guest test failure_sweep $*" > /dev/kmsg
	exit 0
}

for device in "$driver"/*:*; do
	device=$(basename "$device")
	break
done
[ -e "$driver/$device" ] || result "failed: no device is bound"

for kind in failslab fail_page_alloc; do
	echo N > $faults/$kind/ignore-gfp-wait
	echo 0 > $faults/$kind/verbose
done

# The C side forgives a missing entry in /proc/irq, and warns when it removes what isn't there.
echo "<6>dma-rs-tolerate: WARNING: at remove_proc_entry" > /dev/kmsg

failed=0
number=0
left=0
while [ "$left" = 0 ]; do
	number=$((number + 1))
	[ $number -lt $last ] || result "failed: no end after $last allocations"

	if [ -e "$driver/$device" ]; then
		echo "$device" > "$driver/unbind" || result "failed: cannot unbind before $number"
	fi

	# From here on in this very process, without a fork: the count is per task.
	echo $number > /proc/self/fail-nth
	{ echo "$device" > "$driver/bind"; } 2> /dev/null
	{ read -r left < /proc/self/fail-nth; } 2> /dev/null || left=0
	{ echo 0 > /proc/self/fail-nth; } 2> /dev/null || echo 0 > /proc/self/fail-nth

	[ -e "$driver/$device" ] || failed=$((failed + 1))
done

[ -e "$driver/$device" ] || echo "$device" > "$driver/bind" || result "failed: cannot bind again"
[ $failed -gt 10 ] || result "failed: only $failed of $number probes failed"

memory=/sys/kernel/debug/dma_rs_edu-$device/memory
head -c 1000 /dev/urandom > /tmp/sent
dd if=/tmp/sent of="$memory" bs=1000 2> /dev/null
dd if="$memory" of=/tmp/received bs=1000 count=1 2> /dev/null
cmp -s /tmp/sent /tmp/received || result "failed: the device does not work afterwards"

result "passed: $number allocations, $failed of them made the probe fail"
