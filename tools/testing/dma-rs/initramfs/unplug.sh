#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Pulls edu devices out of their slots while they move data.

test=surprise_removal
. /transfers.sh
. /slots.sh

# move read|write DEVICE: moves data in pieces, of which each takes a tenth of a second.
move() {
	memory=$debugfs/dma_rs_edu-$2/memory
	case "$1" in
	read) exec dd if="$memory" of="/tmp/received-$2" bs=$piece count=$((size / piece)) ;;
	write) exec dd if=/tmp/sent of="$memory" bs=$piece ;;
	esac
}

# pull DEVICE...: all devices of a port.
pull() {
	moves=
	for path; do
		device=${path##*/}
		[ -e "$driver/$device" ] || result "failed: $device is not bound"
		[ $way = read ] && way=write || way=read
		move $way "$device" 2> /dev/null &
		# The last device of a slot is the first to be removed.
		moves="$way,$device,$! $moves"
	done
	for move in $moves; do
		transfer=${move##*,}
		within 5 waits || result "failed: a transfer did not begin"
	done

	cycle

	for move in $moves; do
		IFS=, read -r way device transfer <<-END
			$move
		END
		if finish; then
			# It was over before. The data must be right: else the driver made it up.
			late=$((late + 1))
			[ $way = write ] || cmp -s /tmp/sent "/tmp/received-$device" ||
				result "failed: a read from $device, which was gone, had wrong data"
		fi
		gone "$device"
	done
}

before=$(leaked)
piece=50

# Reads are to find something in the devices.
new_data
for path in $driver/*:*; do
	dd if=/tmp/sent of="$debugfs/dma_rs_edu-${path##*/}/memory" bs=$size 2> /dev/null &
done
wait

late=0
way=write
pull_all
[ $late -le $((removed / 2)) ] ||
	result "failed: of $removed transfers, $late succeeded as if the device was there"
[ "$(leaked)" = "$before" ] || result "failed: memory was leaked"

for path in $driver/*:*; do
	[ -e "$path" ] || result "failed: no device is left"
	works "${path##*/}" || result "failed: ${path##*/} does not work afterwards"
done

result "passed: $removed devices removed, $late of them when the transfer was over"
