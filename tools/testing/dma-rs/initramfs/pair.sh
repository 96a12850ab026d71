#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# For two ends of the cable that speak Internet protocols: sourced instead of cable.sh. The other
# end gets a network namespace of its own, or the kernel would not use the cable.

. /cable.sh

here=10.9.0.1
there=10.9.0.2
namespace=

# over COMMAND...: carries it out at the other end.
over() {
	nsenter -n -t $namespace "$@"
}

# apart: whether the other end has a namespace of its own.
apart() {
	[ "$(readlink /proc/$$/ns/net)" != "$(readlink /proc/$namespace/ns/net)" ]
}

# separate: gives the other end a namespace and an address, and opens it.
separate() {
	unshare -n sleep 10000 &
	namespace=$!
	within 5 apart || result "failed: there is no namespace"
	ip link set "$interface" netns $namespace || result "failed: cannot move $interface"
	over ip addr add $there/24 dev "$interface"
	over ip link set "$interface" up || result "failed: cannot open $interface"
}

# open: opens our end.
open() {
	ip link set "$mine" up || result "failed: cannot open $mine"
	ip addr show dev "$mine" | grep -q "$here/" || ip addr add $here/24 dev "$mine"
}

# answers: whether the other end does.
answers() {
	ping -q -c 1 -W 1 $there > /dev/null 2>&1
}

# reunite: ends that namespace, and waits until the other end is back.
reunite() {
	kill $namespace
	within 20 [ -e "/sys/class/net/$interface" ] || result "failed: the peer does not come back"
}
