#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# For the tests of the edu driver: they source this, with their name in $test.

. /basics.sh

driver=/sys/bus/pci/drivers/dma_rs_edu
size=1000

# waits: whether the process sleeps, and not just for a moment: then it waits for the device.
waits() {
	is SDZ && pause 0.01 && is SDZ
}

# start read|write DEVICE: begins a transfer in the background, which is under way afterwards.
start() {
	memory=$debugfs/dma_rs_edu-$2/memory
	case "$1" in
	read) dd if="$memory" of=/tmp/received bs=$size count=1 2> /dev/null & ;;
	write) dd if=/tmp/sent of="$memory" bs=$size 2> /dev/null & ;;
	esac
	transfer=$!
	within 5 waits || result "failed: a $1 did not begin"
}

# new_data: makes /tmp/sent what no device holds.
new_data() {
	head -c $size /dev/urandom > /tmp/sent
}

# holds DEVICE: whether the device has what is in /tmp/sent.
holds() {
	rm -f /tmp/received
	start read "$1"
	finish && cmp -s /tmp/sent /tmp/received
}

# works DEVICE: whether data goes to the device and comes back.
works() {
	new_data
	start write "$1"
	finish && holds "$1"
}

# disturb read|write DEVICE COMMAND...: runs a command, which leaves the device bound, while it
# moves data; to be called when it "works". The transfer may fail, but if it says that it did not,
# the data must be there; and after it all must be well. Counts in $lost what failed.
disturb() {
	way=$1
	device=$2
	shift 2

	[ "$way" = read ] || new_data
	start "$way" "$device"
	"$@" || result "failed: cannot $*"
	if ! finish; then
		lost=$((lost + 1))
	elif [ "$way" = read ]; then
		cmp -s /tmp/sent /tmp/received || result "failed: a read succeeded with wrong data"
	else
		holds "$device" || result "failed: a write succeeded, but the data is not there"
	fi
	works "$device" || result "failed: the device does not work after a $way"
}
