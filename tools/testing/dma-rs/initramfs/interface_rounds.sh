#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Our network interface goes down and up hundreds of times, gets another length of frames, and is
# unbound and bound, while frames go both ways.

test=interface_rounds
. /frames.sh

ups=500
unbinds=200

flags=/sys/class/net/$mine/flags
read -r opened < "$flags"

floods
for round in $(seq $ups); do
	echo $((opened & ~1)) > "$flags" || result "failed: cannot close $mine"
	echo $((opened | 1)) > "$flags" || result "failed: cannot open $mine"
	[ $((round % 50)) != 0 ] || pause 1.2
done
calm "after $ups ups and downs"

floods
for mtu in 46 1500 9000 16110 1500; do
	echo $mtu > "/sys/class/net/$mine/mtu" || result "failed: cannot have an MTU of $mtu"
	pause 0.5
done
for mtu in 45 16111; do
	! echo $mtu 2> /dev/null > "/sys/class/net/$mine/mtu" || result "failed: an MTU of $mtu"
done
calm "after other MTUs"

floods
for round in $(seq $unbinds); do
	unbind
	claim
	ip link set "$mine" up || result "failed: cannot open $mine"
	pause 0.0$((round % 10))
done
calm "after $unbinds unbindings"

end

result "passed: $ups ups and downs, $unbinds unbindings"
