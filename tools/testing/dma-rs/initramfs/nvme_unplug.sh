#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Pulls NVMe devices out of their slots while blocks are written and read.

test=nvme_surprise_removal
. /nvmes.sh
. /slots.sh

# pull PORT DEVICE...: all devices of a port.
pull() {
	port=$1
	shift
	slot_control || result "failed: ${port##*/} has no slot"

	busy=
	for path; do
		device=${path##*/}
		transfer=none
		if [ $stoppable = yes ]; then
			busy "$device"
		else
			works "$device" || result "failed: $device does not work"
		fi
		# The last device of a slot is the first to be removed.
		busy="$device,$transfer $busy"
	done

	cpus 0
	power_off || result "failed: cannot switch ${port##*/} off"
	cpus 1
	power_on || result "failed: cannot switch ${port##*/} on"

	for pair in $busy; do
		device=${pair%,*}
		transfer=${pair#*,}
		removed=$((removed + 1))
		[ $transfer = none ] || finish ||
			result "failed: $device, which was gone, gave what was not written"
		within 5 is_gone "$device" || result "failed: $device is still there"
	done
}

before=$(leaked)
own_all $(in_slots)
set -- $(in_slots)
stoppable=no
! may_interrupt "$1" || stoppable=yes

removed=0
for port in $devices/*; do
	set -- "$port"/????:??:??.?
	[ ! -e "$driver/${1##*/}" ] || pull "$port" "$@"
done

[ $removed -gt 0 ] || result "failed: no NVMe device is in a slot"
[ "$(leaked)" = "$before" ] || result "failed: memory was leaked"

for device in $(on_bus); do
	own "$device" || result "failed: cannot bind $device"
	works "$device" || result "failed: $device does not work afterwards"
	disown "$device"
done

result "passed: $removed devices removed, with commands in flight: $stoppable"
