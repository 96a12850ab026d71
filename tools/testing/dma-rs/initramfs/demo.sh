#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# The demonstration in the guest: sends random bytes through every edu device by DMA, reads them
# back, and compares checksums. Each device has its own folder in debugfs.

debugfs=/sys/kernel/debug/dma_rs_edu
# The device takes at most one byte less than its 4096 bytes of memory.
size=4095
tested=0
verdict=PASS

title() {
	echo
	echo "== $* =="
}

title "What the driver said"
dmesg | sed 's/^\[[^]]*\] //' | grep -i edu | grep -v 'Command line' | head -n 20

for device in "$debugfs"/*/; do
	[ -e "$device/memory" ] || continue
	tested=$((tested + 1))
	title "Device $(basename "$device"): $size random bytes there and back"
	head -c $size /dev/urandom > /tmp/sent
	if ! dd if=/tmp/sent of="$device/memory" bs=4096 2> /tmp/error; then
		echo "writing failed: $(head -n 1 /tmp/error)"
		verdict=FAIL
	fi
	if ! dd if="$device/memory" of=/tmp/read bs=4096 2> /tmp/error; then
		echo "reading failed: $(head -n 1 /tmp/error)"
		verdict=FAIL
	fi
	head -c $size /tmp/read > /tmp/received
	sent=$(sha256sum < /tmp/sent)
	received=$(sha256sum < /tmp/received)
	echo "sent      sha256 ${sent%% *}"
	echo "received  sha256 ${received%% *}"
	if [ "$sent" = "$received" ]; then
		echo "identical"
	else
		echo "DIFFERENT"
		verdict=FAIL
	fi
	title "Statistics of $(basename "$device")"
	cat "$device/stats" || verdict=FAIL
done

if [ "$tested" = 0 ]; then
	echo "no edu device is bound to the driver: nothing in $debugfs"
	verdict=FAIL
fi
echo
echo "dma-rs: verdict: $verdict"
