#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Pulls NICs out of their slots while they send themselves frames.

test=nic_surprise_removal
. /nics.sh
. /slots.sh

# pull PORT DEVICE...: all devices of a port.
pull() {
	port=$1
	shift
	slot_control || result "failed: ${port##*/} has no slot"

	busy=
	for path; do
		device=${path##*/}
		rm -f "/tmp/runs-$device"
		keep_busy "$device" none_wrong &
		# The last device of a slot is the first to be removed.
		busy="$device,$! $busy"
	done
	for path; do
		within 5 has_run "${path##*/}" || result "failed: ${path##*/} sends nothing"
	done

	cpus 0
	power_off || result "failed: cannot switch ${port##*/} off"
	cpus 1
	power_on || result "failed: cannot switch ${port##*/} on"

	for pair in $busy; do
		device=${pair%,*}
		transfer=${pair#*,}
		removed=$((removed + 1))
		finish || result "failed: $device, which was gone, got what was not sent"
		within 5 is_gone "$device" || result "failed: $device is still there"
	done
}

before=$(leaked)
own_all $(in_slots)

removed=0
for port in $devices/*; do
	set -- "$port"/????:??:??.?
	[ ! -e "$driver/${1##*/}" ] || pull "$port" "$@"
done

[ $removed -gt 0 ] || result "failed: no NIC is in a slot"
[ "$(leaked)" = "$before" ] || result "failed: memory was leaked"

for device in $(on_bus); do
	own "$device" || result "failed: cannot bind $device"
	works "$device" || result "failed: $device does not work afterwards"
	disown "$device"
done

result "passed: $removed NICs removed"
