#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Floods of frames by pktgen, one way and the other, short ones and long ones: all of them are
# counted at both ends. What QEMU keeps of frames that nobody has taken yet is more than that.
# pktgen shares its frames with the driver, and 42 bytes are to be padded.

test=interface_floods
. /ends.sh
. /pktgen.sh

many=5000

# count_of WHO INTERFACE NAME: what somebody's interface has counted.
count_of() {
	$1 awk -v "name=$2:" -v "column=$3" '$1 == name { print $column }' /proc/net/dev
}
received=3
sent=11

# all_there: whether both ends have counted all.
all_there() {
	[ "$(count_of "$from" "$sender" $sent) $(count_of "$to" "$receiver" $received)" = \
		"$((sent_before + many)) $((received_before + many))" ]
}

# flood FROM SENDER TO RECEIVER STATION SIZE: from somebody's interface to another's.
flood() {
	from=$1
	sender=$2
	to=$3
	receiver=$4
	sent_before=$(count_of "$from" "$sender" $sent)
	received_before=$(count_of "$to" "$receiver" $received)
	pktgen "$from" "$sender" "$5" "$6" $many
	within 20 all_there ||
		result "failed: of $many frames of $6 bytes $sender has counted" \
			"$(($(count_of "$from" "$sender" $sent) - sent_before)), $receiver" \
			"$(($(count_of "$to" "$receiver" $received) - received_before))"
}

us=$(cat "/sys/class/net/$mine/address")
them=$(over ip link show dev "$interface" | sed -n 's|.*link/ether \([0-9a-f:]*\).*|\1|p')
[ -n "$them" ] || result "failed: the peer has no address"

# arp on|off: whether the ends ask for each other's station, now and then, which would be counted,
# too.
arp() {
	ip link set "$mine" arp "$1"
	over ip link set "$interface" arp "$1"
}

arp off
for size in 42 60 1514; do
	flood "" "$mine" over "$interface" "$them" $size
	flood over "$interface" "" "$mine" "$us" $size
done
no_errors
arp on
within 20 answers || result "failed: the peer does not answer afterwards"

part

result "passed: 6 times $many frames"
