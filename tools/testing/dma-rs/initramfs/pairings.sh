#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# The kernel's own driver and ours at both ends of a cable, in all four ways: pings of each length,
# 100 MiB by TCP and by UDP, each way, with all that the ends can leave to their devices and without
# it. Nothing may be lost.

. /userspace.sh

mib=100
frame=1500
jumbo=9000

# losses WHO INTERFACE: errors and drops that somebody's interface has counted, of what it received
# and of what it sent.
losses() {
	$1 ip -j -s link show dev "$2" | in_host python3 -c 'import json, sys
stats = json.load(sys.stdin)[0]["stats64"]
print(*(stats[way][what] for way in ("rx", "tx") for what in ("errors", "dropped")))'
}

# bulk WHO WORD...: has somebody send, receive or ping.
bulk() {
	who=$1
	shift
	$who python3 /mnt/bulk.py "$@"
}

# transfer FROM TO HOW ADDRESS: sends from one end to an address of the other.
transfer() {
	bulk "$2" receive "$4" "$3" $mib > /tmp/listener 2>&1 &
	transfer=$!
	within 60 grep -q listening /tmp/listener || result "failed: nobody listens at $4"
	bulk "$1" send "$4" "$3" $mib > /tmp/sender 2>&1 ||
		result "failed: sending to $4 by $3: $(tail -n 1 /tmp/sender)"
	within 60 is Z || result "failed: receiving by $3 does not end"
	wait $transfer || result "failed: receiving at $4 by $3: $(tail -n 1 /tmp/listener)"
}

# both_ways HOW NETWORK: sends each way.
both_ways() {
	echo "<6>dma-rs: $test: $1, ${2}1 and ${2}2" > /dev/kmsg
	transfer in_host over "$1" "${2}2"
	transfer over in_host "$1" "${2}1"
}

# is_left WHERE INTERFACE on|off: whether an end leaves work to its device.
is_left() {
	$1 ethtool -k "$2" > /tmp/features
	for feature in tcp-segmentation-offload scatter-gather rx-checksumming tx-checksumming; do
		grep -q "^$feature: $3" /tmp/features ||
			result "failed: $2: $(grep "^$feature" /tmp/features), and not $3"
	done
}

# leave on|off: has the ends leave work to their devices, and the stack join what they receive, or
# not.
leave() {
	for where in in_host over; do
		end=$mine
		[ $where = in_host ] || end=$interface
		for feature in tx rx sg tso gso gro; do
			$where ethtool -K "$end" $feature "$1" > /dev/null 2>&1
		done
		is_left $where "$end" "$1"
	done
}

# mtu LENGTH: sets that of both ends.
mtu() {
	in_host ip link set "$mine" mtu "$1" && over ip link set "$interface" mtu "$1" ||
		result "failed: cannot have an MTU of $1"
	within 20 has_address || result "failed: the peer does not answer with an MTU of $1"
}

# ping_lengths MTU: pings with each length of data that fits into a frame.
ping_lengths() {
	echo "<6>dma-rs: $test: pings of up to $1 bytes" > /dev/kmsg
	bulk in_host ping 192.0.2.2 0 $(($1 - 28)) > /tmp/pings 2>&1 ||
		result "failed: pings: $(tail -n 1 /tmp/pings)"
}

# no_losses DRIVER WHO INTERFACE: whether an end of ours has dropped no frame, and seen no wrong
# one. TCP sends until frames find the receiver's ring full, and then again: these are missed, not
# dropped. Who sends by UDP waits for answers, so what is lost then is noticed. The kernel's own
# driver isn't asked: it drops a frame now and then.
no_losses() {
	[ "$1" = $rust ] || return 0
	found=$(losses "$2" "$3")
	[ "$found" = "0 0 0 0" ] || result "failed: errors and drops, received and sent: $found, $2"
}

# pairing NAME OURS PEER: both ends have these drivers.
pairing() {
	test=pairing_$1
	own=$ours
	ours=$peer
	claim "$3"
	interface=$mine
	ours=$own
	claim "$2"
	separate
	for where in in_host over; do
		$where sh -c "echo 0 0 > /proc/sys/net/ipv4/ping_group_range"
	done

	ping_lengths $frame
	for work in on off; do
		leave $work
		both_ways tcp 192.0.2.
		both_ways udp 192.0.2.
		both_ways tcp 2001:db8::
	done
	leave on
	no_losses "$2" in_host "$mine"
	no_losses "$3" over "$interface"
	mtu $jumbo
	ping_lengths $jumbo
	both_ways tcp 192.0.2.
	reunite
	release
	echo "<6>dma-rs: guest test $test passed: pings, 14 times $mib MiB" > /dev/kmsg
}

rust=dma_rs_e1000_net
pairing rust_rust $rust $rust
pairing rust_c $rust e1000
pairing c_rust e1000 $rust
pairing c_c e1000 e1000
