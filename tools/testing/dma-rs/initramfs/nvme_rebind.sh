#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Unbinds NVMe devices while blocks are written and read, and binds them again. Whoever has
# commands in flight then is told so; nobody waits for ever, or gets what was not written.

test=nvme_rebind
. /nvmes.sh

rounds=15

# rebind DEVICE: again and again.
rebind() {
	device=$1
	for round in $(seq $rounds); do
		transfer=none
		# In turns somebody waits, and nobody.
		case $stoppable$((round % 2)) in
		yes0)
			busy "$device"
			pause 0.$((round % 10))
			;;
		yes1)
			read_ahead "$device"
			;;
		no*)
			works "$device" || result "failed: does not work"
			;;
		esac

		echo "$device" > $driver/unbind || result "failed: cannot be unbound"
		[ $transfer = none ] || finish ||
			result "failed: what was read is not what was written"
		echo "$device" > $driver/bind || result "failed: cannot be bound again"
	done
}

# More would keep each other from working. The first one is slower than the others.
set -- $(in_slots | sed 1d | head -n 7)
own_all "$@"
stoppable=no
! may_interrupt "$1" || stoppable=yes

before=$(leaked)
side_by_side rebind "$@"

rebound=$(($# * rounds))
[ $rebound -ge 100 ] || result "failed: only $# devices are in slots"
[ "$(leaked)" = "$before" ] || result "failed: memory was leaked"

for device; do
	works "$device" || result "failed: $device does not work afterwards"
	disown "$device"
done

result "passed: $rebound times, with commands in flight: $stoppable"
