#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# For the tests that disturb the edu device at work: they source this, with their name in $test.

devices=/sys/bus/pci/devices
driver=/sys/bus/pci/drivers/dma_rs_edu
debugfs=/sys/kernel/debug
size=1000

result() {
	echo "<6>dma-rs-tolerate-end" > /dev/kmsg
	echo "<6>dma-rs: guest test $test $*" > /dev/kmsg
	exit 0
}

# pause SECONDS: without a process, which takes longer than a pause. Nobody writes to this pipe.
[ -p /tmp/pause ] || mkfifo /tmp/pause
exec 9<> /tmp/pause
pause() {
	read -r -t "$1" _ <&9 || true
}

# within SECONDS COMMAND...: whether the command succeeds so soon. Tries do not count as time: a
# slow host makes each longer.
within() {
	read -r now _ < /proc/uptime
	end=$((${now%.*} + 1 + $1))
	shift
	until "$@"; do
		read -r now _ < /proc/uptime
		[ "${now%.*}" -lt $end ] || return 1
		pause 0.01
	done
}

# is STATES: whether the process that makes the transfer is in one of these states; Z if it ended.
is() {
	{ read -r _ _ state _ < "/proc/$transfer/stat"; } 2> /dev/null || state=Z
	case "$1" in *"$state"*) ;; *) false ;; esac
}

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

# finish: whether the transfer has succeeded. It must end soon, this way or the other.
finish() {
	within 5 is Z || result "failed: a transfer did not end within 5 s"
	wait $transfer
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

# leaked: how much was leaked so far, if the kernel counts.
leaked() {
	[ ! -e $debugfs/dma_enclosure/total ] ||
		sed -n 's/^leaked //p' $debugfs/dma_enclosure/total
}
