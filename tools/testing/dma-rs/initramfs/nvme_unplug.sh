#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Pulls NVMe devices out of their slots while blocks are written and read.

test=nvme_surprise_removal
. /nvmes.sh
. /slots.sh

# pull DEVICE...: all devices of a port.
pull() {
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

	cycle

	for pair in $busy; do
		device=${pair%,*}
		transfer=${pair#*,}
		[ $transfer = none ] || finish ||
			result "failed: $device, which was gone, gave what was not written"
		gone "$device"
	done
}

before=$(leaked)
own_all $(in_slots)
set -- $(in_slots)
stoppable=no
! may_interrupt "$1" || stoppable=yes

pull_all
[ "$(leaked)" = "$before" ] || result "failed: memory was leaked"
work_afterwards $(on_bus)

result "passed: $removed devices removed, with commands in flight: $stoppable"
