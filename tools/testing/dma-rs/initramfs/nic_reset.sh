#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Resets a NIC while it sends itself frames: by its driver, by rings of another length, and by the
# bus that it is alone on.

test=nic_reset
. /nics.sh

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
	esac || result "failed: cannot reset by $1"

	# They may not have noticed.
	touch /tmp/enough
	finish || result "failed: what was not sent arrived"
	rm /tmp/enough
	works "$device" || result "failed: the device does not work after a reset by $1"
}

# With others in the slot, the first of them has the attribute too, in vain.
for path in $devices/????:*; do
	set -- "$path"/????:??:??.?
	device=${1##*/}
	[ $# != 1 ] || [ ! -e "$1/reset" ] || ! is_ours "$device" || break
done
[ -e "$devices/$device/reset" ] && own "$device" ||
	result "failed: no NIC that can be reset can be bound"

before=$(leaked)
for length in 128 4096 64; do
	for way in driver resize bus; do
		disturb $way
	done
done
[ "$(leaked)" = "$before" ] || result "failed: memory was leaked"
echo "$device" > $driver/unbind

result "passed: 9 times"
