#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# The demonstration in the guest: random bytes go to each edu device by DMA and come back, and
# through it in pieces; checksums are compared. What the DMA API was called for is counted by its
# tracepoints, not by the driver. Each device has a folder of its own in debugfs.

debugfs=/sys/kernel/debug
tracefs=/sys/kernel/tracing
# The device takes one byte less than its 4096 bytes of memory.
size=4095
# More than it takes at once.
long=10000
tested=0
verdict=PASS

title() {
	echo
	echo "== $* =="
}

fail() {
	echo "$*"
	verdict=FAIL
}

# compare FILE FILE: shows both checksums.
compare() {
	sent=$(sha256sum < "$1")
	received=$(sha256sum < "$2")
	echo "sent      sha256 ${sent%% *}"
	echo "received  sha256 ${received%% *}"
	if [ "$sent" = "$received" ]; then
		echo "identical"
	else
		fail "DIFFERENT"
	fi
}

# calls FUNCTION DEVICE: how often the DMA API was called for the device.
calls() {
	grep -c "$1: $2 " /tmp/trace
}

title "What the driver said"
dmesg | sed 's/^\[[^]]*\] //' | grep '^dma_rs_edu ' | head -n 20

mount -t tracefs none $tracefs
echo 1 > $tracefs/events/dma/enable

for folder in "$debugfs"/dma_rs_edu-*/; do
	[ -e "$folder/memory" ] || continue
	tested=$((tested + 1))
	device=$(basename "$folder")
	device=${device#dma_rs_edu-}
	: > $tracefs/trace

	title "$device: $size random bytes there and back"
	head -c $size /dev/urandom > /tmp/sent
	dd if=/tmp/sent of="$folder/memory" bs=$size 2> /tmp/error ||
		fail "writing failed: $(head -n 1 /tmp/error)"
	dd if="$folder/memory" of=/tmp/received bs=$size 2> /tmp/error ||
		fail "reading failed: $(head -n 1 /tmp/error)"
	compare /tmp/sent /tmp/received

	title "$device: $long random bytes through the device, in pieces"
	head -c $long /dev/urandom > /tmp/sent
	dd if=/tmp/sent of="$folder/copy" bs=$long 2> /tmp/error ||
		fail "copying failed: $(head -n 1 /tmp/error)"
	cat "$folder/copy" > /tmp/received
	compare /tmp/sent /tmp/received

	title "$device: what the driver counted"
	cat "$folder/stats" || fail "no statistics"

	title "$device: what the DMA API was called for"
	cat $tracefs/trace > /tmp/trace
	maps=$(calls dma_map_phys "$device")
	unmaps=$(calls dma_unmap_phys "$device")
	echo "maps: $maps, unmaps: $unmaps"
	echo "syncs for the CPU: $(calls dma_sync_single_for_cpu "$device")," \
		"for the device: $(calls dma_sync_single_for_device "$device")"
	# One of each for the two transfers, and for the two buffers of the copy.
	[ "$maps" = 4 ] && [ "$unmaps" = 4 ] || fail "expected 4 maps and 4 unmaps"
done

if [ "$tested" = 0 ]; then
	fail "no edu device is bound to the driver: nothing in $debugfs/dma_rs_edu-*"
fi
echo
echo "dma-rs: verdict: $verdict"
