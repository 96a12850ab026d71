#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# For the tests of our network interface without any protocol: they source this, with their name in
# $test. Frames are random, of all lengths, and compared byte for byte.

. /cable.sh

# open: opens our end.
open() {
	ip link set "$mine" up || result "failed: cannot open $mine"
	within 10 has_carrier "$mine" || result "failed: $mine has no carrier"
}

# one_way FROM TO FRAMES: sends frames from an interface to another.
one_way() {
	listen "$2" /tmp/there
	frames send "$1" "$3" || result "failed: cannot send from $1"
	arrived "$2" "$3" /tmp/there
}

# works_still: whether frames arrive, in both directions.
works_still() {
	one_way "$mine" "$interface" /tmp/to-peer
	one_way "$interface" "$mine" /tmp/to-us
}

# flood INTERFACE FRAMES: sends them until /tmp/enough is there, as far as that goes.
flood() {
	while [ ! -e /tmp/enough ]; do
		frames send "$1" "$2" || pause 0.05
	done 2> /dev/null
}

# floods: begins to send both ways.
floods() {
	rm -f /tmp/enough
	flood "$interface" /tmp/to-us &
	theirs=$!
	flood "$mine" /tmp/to-peer &
	own=$!
}

# settled: whether nothing has come for a while.
settled() {
	seen=$(counted rx_packets)
	pause 1
	[ "$(counted rx_packets)" = "$seen" ]
}

# calm WHEN: ends that. Nothing must have happened to frames but that they were lost.
calm() {
	: > /tmp/enough
	wait $theirs $own
	# The peer's driver takes seconds to notice that it is awake.
	within 20 has_carrier "$interface" || result "failed: $interface has no carrier, $1"
	within 20 has_carrier "$mine" || result "failed: $mine has no carrier, $1"
	within 20 settled || result "failed: frames come for ever, $1"
	works_still
}

# end: gives our end back.
end() {
	release
	ip link set "$interface" down
	[ "$(leaked)" = "$before" ] || result "failed: memory was leaked"
}

before=$(leaked)
claim
ip link set "$interface" up || result "failed: cannot open $interface"
open
within 10 has_carrier "$interface" || result "failed: $interface has no carrier"

frames make /tmp/to-peer $count "$(cat "/sys/class/net/$interface/address")"
frames make /tmp/to-us $count "$(cat "/sys/class/net/$mine/address")"
