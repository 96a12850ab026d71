#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Our network interface talks to one of the kernel's own driver, over a cable, with Internet
# protocols: pings of many lengths and TCP, both ways, and pings while it goes down and up and is
# unbound.

test=internet
. /ends.sh

bytes=2000000
tracefs=/sys/kernel/tracing

# left_to_device PATTERN: how many frames went to our device in which something was left to it.
left_to_device() {
	grep -c "net_dev_start_xmit: dev=$mine .*$1" $tracefs/trace
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

# tcp HERE THERE: sends by TCP from one of these addresses to the other, and back. Who listens has
# an input that stays open: it would shut down its side otherwise, and who sends would end before
# all is sent. It is given to TCP in long pieces, for devices to divide.
tcp() {
	over nc -l -p 5000 > /tmp/at-peer <&9 &
	transfer=$!
	pause 0.5
	nc "$2" 5000 -e dd if=/tmp/sent bs=64k 2> /dev/null ||
		result "failed: cannot send to $2 by TCP"
	same /tmp/at-peer
	nc -l -p 5001 > /tmp/at-us <&9 &
	transfer=$!
	pause 0.5
	over nc "$1" 5001 -e dd if=/tmp/sent bs=64k 2> /dev/null ||
		result "failed: the peer cannot send to $1 by TCP"
	same /tmp/at-us
}

# refused: how many frames the peer's device has refused.
refused() {
	over awk -v "name=$interface:" '$1 == name { print $4 }' /proc/net/dev
}

# same FILE: whether what was sent by TCP is in the file, when who receives it has ended.
same() {
	within 60 is Z || result "failed: TCP does not end"
	cmp -s /tmp/sent "$1" ||
		result "failed: of $bytes bytes, $(wc -c < "$1") arrived by TCP, or others"
}

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
echo 20000 > $tracefs/buffer_size_kb
echo 1 > $tracefs/events/net/net_dev_start_xmit/enable
head -c $bytes /dev/urandom > /tmp/sent
tcp $here $there

conf=/proc/sys/net/ipv6/conf
echo 0 > "$conf/$mine/disable_ipv6" && over sh -c "echo 0 > $conf/$interface/disable_ipv6" ||
	result "failed: there is no IPv6"
ip addr add fd00::1/64 dev "$mine"
over ip addr add fd00::2/64 dev "$interface"
within 20 ping -q -c 1 -W 1 fd00::2 > /dev/null 2>&1 || result "failed: no answer by IPv6"
tcp fd00::1 fd00::2

echo 0 > $tracefs/events/net/net_dev_start_xmit/enable
checksums=$(left_to_device "ip_summed=3 ")
divided=$(left_to_device "protocol=0x0800 .*gso_size=[1-9]")
divided6=$(left_to_device "protocol=0x86dd .*gso_size=[1-9]")
pieces=$(left_to_device "data_len=[1-9]")
[ "$checksums" -gt 20 ] && [ "$divided" -gt 20 ] && [ "$divided6" = 0 ] &&
	[ "$pieces" -gt 20 ] ||
	result "failed: left to it: $checksums checksums, $divided divisions, $divided6 of IPv6," \
		"$pieces in pieces"

# TCP gets through even if nothing is divided: what is too long is sent again, frame by frame. The
# peer asks its device every two seconds.
pause 3
[ "$(refused)" = 0 ] || result "failed: the peer has refused $(refused) frames"

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

part

result "passed: pings, VLAN, TCP ($divided frames divided), ups and downs, unbinding"
