#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Resets a NIC while it sends itself frames: by its driver, by rings of another length, by the bus
# that it is alone on, and by both of these at once.

test=nic_reset
. /nics.sh

# resize_during_reset: until that is refused, since the bus resets it, which keeps it from being
# started. It must not be the one after the reset that starts it.
resize_during_reset() {
	echo 1 > "$devices/$device/reset" &
	reset=$!
	while kill -0 $reset && echo "$length $length" > "$debugfs/dma_rs_e1000-$device/resize"; do
		:
	done 2> /dev/null
	wait $reset
}

# disturb WAY: whoever sends frames is told so, and nothing arrives that was not sent.
disturb() {
	rm -f "/tmp/runs-$device"
	keep_busy "$device" none_wrong &
	transfer=$!
	within 5 has_run "$device" || result "failed: no frames are sent"

	case "$1" in
	driver) echo 1 > "$debugfs/dma_rs_e1000-$device/reset" ;;
	resize) echo "$length $length" > "$debugfs/dma_rs_e1000-$device/resize" ;;
	bus) echo 1 > "$devices/$device/reset" ;;
	both) resize_during_reset ;;
	esac || result "failed: cannot reset by $1"

	# They may not have noticed.
	touch /tmp/enough
	finish || result "failed: what was not sent arrived"
	rm /tmp/enough
	works "$device" || result "failed: the device does not work after a reset by $1"
}

alone
before=$(leaked)
for length in 128 4096 64; do
	for way in driver resize bus both; do
		disturb $way
	done
done
[ "$(leaked)" = "$before" ] || result "failed: memory was leaked"
echo "$device" > $driver/unbind

result "passed: 12 times"
