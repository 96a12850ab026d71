#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Pulls NICs out of their slots while they send themselves frames.

test=nic_surprise_removal
. /nics.sh
. /slots.sh

# pull DEVICE...: all devices of a port.
pull() {
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

	cycle

	for pair in $busy; do
		device=${pair%,*}
		transfer=${pair#*,}
		finish || result "failed: $device, which was gone, got what was not sent"
		gone "$device"
	done
}

before=$(leaked)
own_all $(in_slots)
pull_all
[ "$(leaked)" = "$before" ] || result "failed: memory was leaked"
work_afterwards $(on_bus)

result "passed: $removed NICs removed"
