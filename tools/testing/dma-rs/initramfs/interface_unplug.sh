#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Pulls network interfaces out of their slots while they send.

test=interface_unplug
. /nics.sh
driver=/sys/bus/pci/drivers/dma_rs_e1000_net
. /slots.sh

# keep_sending INTERFACE: until it is gone.
keep_sending() {
	while frames send "$1" /tmp/frames; do
		echo >> "/tmp/runs-$1"
	done 2> /dev/null
}

# pull DEVICE...: all devices of a port.
pull() {
	busy=
	for path; do
		for net in "$path"/net/*; do
			name=${net##*/}
		done
		ip link set "$name" up || result "failed: cannot open $name"
		rm -f "/tmp/runs-$name"
		keep_sending "$name" &
		# The last device of a slot is the first to be removed.
		busy="${path##*/},$name,$! $busy"
	done
	for entry in $busy; do
		entry=${entry#*,}
		within 20 has_run "${entry%,*}" || result "failed: ${entry%,*} sends nothing"
	done

	cycle

	for entry in $busy; do
		transfer=${entry##*,}
		within 20 is Z || result "failed: ${entry%,*}: what is sent to it does not end"
		gone "${entry%%,*}"
	done
}

before=$(leaked)
frames make /tmp/frames 20 02:00:00:00:00:07
own_all $(in_slots)
pull_all
[ "$(leaked)" = "$before" ] || result "failed: memory was leaked"

result "passed: $removed interfaces removed"
