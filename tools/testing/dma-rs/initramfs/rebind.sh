#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Unbinds NICs while they send themselves frames, and binds them again. Whoever has frames under way
# then is told so; nobody waits for ever, or gets what was not sent. Each start of a receiver takes
# a second, for which QEMU's is deaf: so all NICs are started, and then all are stopped. The first
# time that second isn't over.

test=rebind
. /nics.sh

nics=$(in_slots)
[ -n "$nics" ] || result "failed: no NIC is in a slot"
for device in $nics; do
	own "$device" || result "failed: cannot bind $device"
done

before=$(leaked)
rebound=0
for when in 0.3 1.2 1.4 1.6 2; do
	busy=
	for device in $nics; do
		[ -e "$driver/$device" ] || echo "$device" > $driver/bind ||
			result "failed: cannot bind $device again"
		keep_busy "$device" all_there &
		busy="$busy $device,$!"
	done

	pause $when
	for device in $nics; do
		echo "$device" > $driver/unbind || result "failed: cannot unbind $device"
		rebound=$((rebound + 1))
	done

	for pair in $busy; do
		transfer=${pair#*,}
		finish || result "failed: ${pair%,*} lost frames, or got what was not sent"
	done
done

runs=$(runs $nics)
[ "$runs" -gt $rebound ] || result "failed: frames were sent $runs times only"
[ "$(leaked)" = "$before" ] || result "failed: memory was leaked"

for device in $nics; do
	echo "$device" > $driver/bind || result "failed: cannot bind $device at the end"
done
for device in $nics; do
	works "$device" || result "failed: $device does not work afterwards"
	echo "$device" > $driver/unbind
done

result "passed: $rebound times, frames were sent $runs times"
