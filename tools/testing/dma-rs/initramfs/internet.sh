#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Our network interface talks to one of the kernel's own driver, over a cable, with Internet
# protocols: pings of many lengths and TCP, both ways, and pings while it goes down and up and is
# unbound. The other end is in a network namespace of its own, or the kernel would not use the
# cable.

test=internet
. /cable.sh

here=10.9.0.1
there=10.9.0.2
bytes=2000000
namespace=
tracefs=/sys/kernel/tracing

# over COMMAND...: carries it out at the other end.
over() {
	nsenter -n -t $namespace "$@"
}

# apart: whether the other end has a namespace of its own.
apart() {
	[ "$(readlink /proc/$$/ns/net)" != "$(readlink /proc/$namespace/ns/net)" ]
}

# open: opens our end.
open() {
	ip link set "$mine" up || result "failed: cannot open $mine"
	ip addr show dev "$mine" | grep -q "$here/" || ip addr add $here/24 dev "$mine"
}

# left_to_device PATTERN: how many frames went to our device in which something was left to it.
left_to_device() {
	grep -c "net_dev_start_xmit: dev=$mine .*$1" $tracefs/trace
}

# answers: whether the other end does.
answers() {
	ping -q -c 1 -W 1 $there > /dev/null 2>&1
}

# all_back WHO PING...: whether the pings of somebody all come back.
all_back() {
	who=$1
	shift
	"$@" -q -c 5 -i 0.02 -W 5 > /tmp/ping 2>&1 && grep -q " 0% packet loss" /tmp/ping ||
		result "failed: pings of $size bytes, by $who: $(tail -n 2 /tmp/ping)"
}

# both_ways SIZE...: whether pings of these sizes arrive both ways, all of them.
both_ways() {
	for size; do
		all_back us ping -s "$size" $there
		all_back "the peer" over ping -s "$size" $here
	done
}

# same FILE: whether what was sent by TCP is in the file, when who receives it has ended.
same() {
	within 60 is Z || result "failed: TCP does not end"
	cmp -s /tmp/sent "$1" ||
		result "failed: of $bytes bytes, $(wc -c < "$1") arrived by TCP, or others"
}

before=$(leaked)
unshare -n sleep 10000 &
namespace=$!
within 5 apart || result "failed: there is no namespace"
ip link set "$interface" netns $namespace || result "failed: cannot move $interface"
over ip addr add $there/24 dev "$interface"
over ip link set "$interface" up || result "failed: cannot open $interface"

claim
open
within 20 answers || result "failed: the peer does not answer"
both_ways 0 18 56 500 1472 4000

# Both ends by VLAN, whose tags the devices insert and take out.
ip link add link "$mine" name vlan7 type vlan id 7 || result "failed: there is no VLAN"
ip addr add 10.9.7.1/24 dev vlan7
ip link set vlan7 up
over ip link add link "$interface" name vlan7 type vlan id 7
over ip addr add 10.9.7.2/24 dev vlan7
over ip link set vlan7 up
here=10.9.7.1
there=10.9.7.2
both_ways 56 1472
here=10.9.0.1
there=10.9.0.2
ip link del vlan7

mount -t tracefs none $tracefs
echo 1 > $tracefs/events/net/net_dev_start_xmit/enable
head -c $bytes /dev/urandom > /tmp/sent
# Who listens has an input that stays open: it would shut down its side otherwise, and who sends
# would end before all is sent.
over nc -l -p 5000 > /tmp/at-peer <&9 &
transfer=$!
pause 0.5
nc $there 5000 < /tmp/sent > /dev/null || result "failed: cannot send by TCP"
same /tmp/at-peer
nc -l -p 5001 > /tmp/at-us <&9 &
transfer=$!
pause 0.5
over nc $here 5001 < /tmp/sent > /dev/null || result "failed: the peer cannot send by TCP"
same /tmp/at-us

echo 0 > $tracefs/events/net/net_dev_start_xmit/enable
checksums=$(left_to_device "ip_summed=3 ")
divided=$(left_to_device "gso_size=[1-9]")
pieces=$(left_to_device "data_len=[1-9]")
[ "$checksums" -gt 20 ] && [ "$divided" -gt 20 ] && [ "$pieces" -gt 20 ] ||
	result "failed: left to it: $checksums checksums, $divided divisions, $pieces in pieces"

[ "$(counted tx_packets)" -gt 1000 ] && [ "$(counted rx_packets)" -gt 1000 ] ||
	result "failed: $(counted tx_packets) sent, $(counted rx_packets) received"
no_errors

# Without a function, which would be a process between.
nsenter -n -t $namespace ping -q -i 0.01 $here > /dev/null 2>&1 &
floods=$!
for round in $(seq 10); do
	ip link set "$mine" down || result "failed: cannot close $mine"
	open
done
within 20 answers || result "failed: the peer does not answer after ups and downs"
for round in 1 2 3 4 5; do
	pause 0.$round
	unbind
	claim
	open
done
within 20 answers || result "failed: the peer does not answer after unbinding"
kill $floods
both_ways 56 1472

release
kill $namespace
within 20 [ -e "/sys/class/net/$interface" ] || result "failed: the peer does not come back"
[ "$(leaked)" = "$before" ] || result "failed: memory was leaked"

result "passed: pings, VLAN, TCP ($divided frames divided), ups and downs, unbinding"
