#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# For the tests of the e1000 driver: they source this, with their name in $test. A stub has the
# devices, or the kernel's own driver.

driver=/sys/bus/pci/drivers/dma_rs_e1000

# is_ours DEVICE: whether our driver knows it. Leaves the model in $model.
is_ours() {
	read -r vendor < "$devices/$1/vendor"
	read -r model < "$devices/$1/device"
	case "$vendor $model" in
	"0x8086 0x100c" | "0x8086 0x100e" | "0x8086 0x100f") ;;
	*) false ;;
	esac
}

. /binding.sh

# alone: finds a device of ours that can be reset by its bus, and binds our driver to it. Leaves it
# in $device. With others in the slot, the first of them has the attribute too, in vain.
alone() {
	for path in $devices/????:*; do
		set -- "$path"/????:??:??.?
		device=${1##*/}
		[ $# != 1 ] || [ ! -e "$1/reset" ] || ! is_ours "$device" || break
	done
	[ -e "$devices/$device/reset" ] && own "$device" ||
		result "failed: no NIC that can be reset can be bound"
}

# traffic DEVICE FRAMES BYTES: whether the device has sent itself frames of that length. What came
# of them is in variables that are named as in the report. Without a process.
traffic() {
	report=$debugfs/dma_rs_e1000-$1/traffic
	lost=
	{
		echo "$2 $3" > "$report" || return 1
		while read -r name value; do
			eval "$name=$value"
		done < "$report"
	} 2> /dev/null
	# The last line, which isn't there if the device went before it was read.
	[ -n "$lost" ]
}

# all_there: whether the frames of that length that traffic has sent arrived.
all_there() {
	[ "$frames $mismatches $lost" = "96 0 0" ]
}

# none_wrong: whether those of them that arrived are right.
none_wrong() {
	[ "$mismatches" = 0 ]
}

# works DEVICE: whether frames go out and come in.
works() {
	traffic "$1" 96 1514 && all_there
}

# keep_busy DEVICE COMMAND: sends frames until that is refused, or /tmp/enough is there; for the
# background. Fails if the command does, which looks at each report. There is a line in
# /tmp/runs-DEVICE for each.
keep_busy() {
	while [ ! -e /tmp/enough ] && traffic "$1" 96 1514; do
		if ! $2; then
			echo "<6>dma-rs: $1: $mismatches wrong, $lost lost" > /dev/kmsg
			exit 1
		fi
		echo >> "/tmp/runs-$1"
	done
	exit 0
}

# keep_sending DEVICE: as keep_busy, with frames that nobody receives: begins at once. There is a
# line for each. Without a process.
frame=$(head -c 1000 /dev/zero | tr '\0' x)
keep_sending() {
	while echo "$frame" > "$debugfs/dma_rs_e1000-$1/send"; do
		echo >> "/tmp/runs-$1"
	done 2> /dev/null
}

# runs DEVICE...: how many reports there were.
runs() {
	for device; do
		[ ! -e "/tmp/runs-$device" ] || cat "/tmp/runs-$device"
	done | wc -l
}

# has_run DEVICE: whether there was one. Without a process.
has_run() {
	[ -s "/tmp/runs-$1" ]
}
