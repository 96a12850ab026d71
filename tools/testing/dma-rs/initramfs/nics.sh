#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# For the tests of the e1000 driver: they source this, with their name in $test. It binds to no
# device by itself; a stub has the devices, or the kernel's own driver.

. /basics.sh

driver=/sys/bus/pci/drivers/dma_rs_e1000
rm -f /tmp/enough

# is_nic DEVICE: whether our driver knows it. Leaves the model in $model.
is_nic() {
	read -r vendor < "$devices/$1/vendor"
	read -r model < "$devices/$1/device"
	case "$vendor $model" in
	"0x8086 0x100c" | "0x8086 0x100e" | "0x8086 0x100f") ;;
	*) false ;;
	esac
}

# own DEVICE: binds our driver to a device that another may have.
own() {
	echo dma_rs_e1000 > "$devices/$1/driver_override"
	[ ! -e "$devices/$1/driver" ] || echo "$1" > "$devices/$1/driver/unbind"
	echo "$1" > $driver/bind
}

# own_all DEVICE...: side by side, since most of the time of a bind is waiting.
own_all() {
	for device; do
		own "$device" &
	done
	wait
	for device; do
		[ -e "$driver/$device" ] || result "failed: cannot bind $device"
	done
}

# disown DEVICE: gives it back.
disown() {
	echo "$1" > $driver/unbind
	echo > "$devices/$1/driver_override"
	echo "$1" > /sys/bus/pci/drivers_probe
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

# in_slots: the NICs that are behind ports.
in_slots() {
	for path in $devices/*/????:??:??.?; do
		! is_nic "${path##*/}" || echo "${path##*/}"
	done
}

# on_bus: the NICs that are not, in the order of the bus.
on_bus() {
	for path in $devices/????:00:??.?; do
		! is_nic "${path##*/}" || echo "${path##*/}"
	done
}
