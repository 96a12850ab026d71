#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# A network interface of ours talks to one of the kernel's own driver, over a cable: both ways, with
# frames of all lengths, while it goes down and up, and is unbound. The other end is in a network
# namespace of its own, or the kernel would not use the cable.

test=interface
. /nics.sh

driver=/sys/bus/pci/drivers/dma_rs_e1000_net
here=10.9.0.1
there=10.9.0.2
bytes=2000000
namespace=

# over COMMAND...: carries it out at the other end.
over() {
	nsenter -n -t $namespace "$@"
}

# apart: whether the other end has a namespace of its own.
apart() {
	[ "$(readlink /proc/$$/ns/net)" != "$(readlink /proc/$namespace/ns/net)" ]
}

# claim DEVICE: binds our driver to a device that another may have. Leaves the interface in $ours.
claim() {
	echo dma_rs_e1000_net > "$devices/$1/driver_override"
	[ ! -e "$devices/$1/driver" ] || echo "$1" > "$devices/$1/driver/unbind"
	echo "$1" > $driver/bind || result "failed: cannot bind $1"
	for path in "$devices/$1"/net/*; do
		ours=${path##*/}
	done
	[ -e "/sys/class/net/$ours" ] || result "failed: $1 has no interface"
}

# up: opens our end.
up() {
	ip link set "$ours" up || result "failed: cannot open $ours"
	ip addr show dev "$ours" | grep -q "$here/" || ip addr add $here/24 dev "$ours"
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

# arrived FILE: whether what was sent by TCP is in the file, when who receives it has ended.
arrived() {
	within 60 is Z || result "failed: TCP does not end"
	cmp -s /tmp/sent "$1" ||
		result "failed: of $bytes bytes, $(wc -c < "$1") arrived by TCP, or others"
}

# counted NAME: what our end has counted.
counted() {
	cat "/sys/class/net/$ours/statistics/$1"
}

# The two ends are neighbours on the bus, and of two models.
for device in $(on_bus); do
	is_nic "$device"
	if [ "$model" = 0x100f ]; then
		peer=$device
		break
	fi
	end=$device
done
for path in "$devices/$peer"/net/*; do
	theirs=${path##*/}
done
[ -n "$end" ] && [ -e "/sys/class/net/$theirs" ] || result "failed: there is no peer"

before=$(leaked)
unshare -n sleep 10000 &
namespace=$!
within 5 apart || result "failed: there is no namespace"
ip link set "$theirs" netns $namespace || result "failed: cannot move $theirs"
over ip addr add $there/24 dev "$theirs"
over ip link set "$theirs" up || result "failed: cannot open $theirs"

claim "$end"
up
within 20 answers || result "failed: the peer does not answer"
both_ways 0 18 56 500 1472 4000

head -c $bytes /dev/urandom > /tmp/sent
over nc -l -p 5000 > /tmp/at-peer < /dev/null &
transfer=$!
pause 0.5
nc $there 5000 < /tmp/sent > /dev/null || result "failed: cannot send by TCP"
arrived /tmp/at-peer
nc -l -p 5001 > /tmp/at-us < /dev/null &
transfer=$!
pause 0.5
over nc $here 5001 < /tmp/sent > /dev/null || result "failed: the peer cannot send by TCP"
arrived /tmp/at-us

[ "$(counted tx_packets)" -gt 1000 ] && [ "$(counted rx_packets)" -gt 1000 ] ||
	result "failed: $(counted tx_packets) sent, $(counted rx_packets) received"
for name in tx_dropped tx_errors rx_dropped rx_errors; do
	[ "$(counted $name)" = 0 ] || result "failed: $name: $(counted $name)"
done

# Under traffic: nothing else must happen to what is sent meanwhile than to be lost.
over ping -q -i 0.01 $here > /dev/null 2>&1 &
floods=$!
for round in $(seq 10); do
	ip link set "$ours" down || result "failed: cannot close $ours"
	up
done
within 20 answers || result "failed: the peer does not answer after ups and downs"
for round in $(seq 5); do
	pause 0.$round
	echo "$end" > $driver/unbind || result "failed: cannot unbind $end"
	claim "$end"
	up
done
within 20 answers || result "failed: the peer does not answer after unbinding"
kill $floods
both_ways 56 1472

echo "$end" > $driver/unbind
echo > "$devices/$end/driver_override"
echo "$end" > /sys/bus/pci/drivers_probe
kill $namespace
within 20 [ -e "/sys/class/net/$theirs" ] || result "failed: the peer does not come back"
[ "$(leaked)" = "$before" ] || result "failed: memory was leaked"

result "passed: pings, TCP, ups and downs, unbinding"
