#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Unbinds NICs while they send themselves frames, and binds them again. Whoever has frames under way
# then is told so; nobody waits for ever, or gets what was not sent.

test=rebind
. /nics.sh

rounds=21

# rebind DEVICE: again and again.
rebind() {
	device=$1
	for round in $(seq $rounds); do
		# After a start QEMU's receiver is deaf for a second: now and then that is waited
		# for. Where the host is busy it takes longer, and frames may be lost.
		if [ $((round % 5)) = 0 ]; then
			keep_busy "$device" none_wrong &
			when=1.2
		else
			keep_sending "$device" &
			when=0.$round
		fi
		transfer=$!

		pause $when
		echo "$device" > $driver/unbind || result "failed: cannot be unbound"
		finish || result "failed: what was not sent arrived"
		echo "$device" > $driver/bind || result "failed: cannot be bound again"
	done
}

# More would keep each other from sending.
set -- $(in_slots | head -n 10)
own_all "$@"

before=$(leaked)
side_by_side rebind "$@"

rebound=$(($# * rounds))
runs=$(runs "$@")
[ $rebound -ge 200 ] || result "failed: only $# NICs are in slots"
[ "$runs" -gt $rebound ] || result "failed: there was traffic $runs times only"
[ "$(leaked)" = "$before" ] || result "failed: memory was leaked"

for device; do
	works "$device" || result "failed: $device does not work afterwards"
	echo "$device" > $driver/unbind
done

result "passed: $rebound times, there was traffic $runs times"
