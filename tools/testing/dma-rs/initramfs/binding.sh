#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# For the tests of drivers that bind to no device by themselves: they source this, with their name
# in $test, the driver's folder in $driver, and a function is_ours, which says whether the driver
# knows a device.

. /basics.sh

rm -f /tmp/enough

# own DEVICE: binds our driver to a device that another may have.
own() {
	echo "${driver##*/}" > "$devices/$1/driver_override"
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

# in_slots: our devices that are behind ports.
in_slots() {
	for path in $devices/*/????:??:??.?; do
		! is_ours "${path##*/}" || echo "${path##*/}"
	done
}

# on_bus: those that are not, in the order of the bus.
on_bus() {
	for path in $devices/????:00:??.?; do
		! is_ours "${path##*/}" || echo "${path##*/}"
	done
}

# work_afterwards DEVICE...: binds our driver to each of them, and gives them back.
work_afterwards() {
	for device; do
		own "$device" || result "failed: cannot bind $device"
		works "$device" || result "failed: $device does not work afterwards"
		disown "$device"
	done
}

# side_by_side COMMAND DEVICE...: carries out a command for each device, at the same time.
side_by_side() {
	command=$1
	shift
	rm -f /tmp/outcome-*
	pids=
	for device; do
		(
			result() {
				echo "failed: $device: ${*#failed: }" > "/tmp/outcome-$device"
				exit 1
			}
			$command "$device"
		) &
		pids="$pids $!"
	done
	for pid in $pids; do
		wait "$pid" || result "$(cat /tmp/outcome-* | head -n 1)"
	done
}
