#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# A part of the demonstration: a network interface, with the kernel's own driver and with ours, on
# the same device. Its cable goes to a device of the kernel's own driver, which is in a network
# namespace of its own.

. /pair.sh

bytes=$((1 << 20))

result() {
	echo "${*#failed: }"
	exit 1
}

# busy: the instructions so far, without the time in which the CPU was idle.
busy() {
	read -r up idle < /proc/uptime
	echo $(((${up%.*}${up#*.} - ${idle%.*}${idle#*.}) * 10000000))
}

# transfer WHO TO FROM FILE: sends a file by TCP, from somebody's end to another's. Who listens has
# an input that stays open.
transfer() {
	$3 nc -l -p 5000 <&9 > "$4" &
	listener=$!
	pause 0.5
	$1 nc "$2" 5000 < /tmp/sent > /dev/null || result "failed: cannot send to $2 by TCP"
	wait $listener
	cmp -s /tmp/sent "$4" || result "failed: of what was sent to $2 by TCP, other bytes arrived"
}

# show DRIVER: has it carry pings, and a file both ways; a row of the table.
show() {
	claim "$1"
	open
	within 20 answers || result "failed: the peer does not answer"
	ping -q -c 10 -i 0.05 $there > /tmp/ping || result "failed: $(tail -n 2 /tmp/ping)"
	replies=$(sed -n 's/.* transmitted, \([0-9]*\) .*received.*/\1/p' /tmp/ping)

	spent=$(busy)
	transfer "" $there over /tmp/at-peer
	transfer over $here "" /tmp/at-us
	spent=$(($(busy) - spent))
	frames=$(($(counted rx_packets) + $(counted tx_packets)))
	printf "$row" "$1" "$replies of 10" $((2 * bytes)) $frames \
		$((frames * 1000000 / (spent / 1000))) $((2 * bytes * 1000 / (spent / 1000)))
	release
}

head -c $bytes /dev/urandom > /tmp/sent
separate
row='%-16s %9s %15s %7s %18s %16s\n'
printf "$row" driver pings 'bytes by TCP' frames 'frames/10^9 inst.' 'bytes/10^6 inst.'
show e1000
show dma_rs_e1000_net
reunite
echo "sent      sha256 $(sha256sum < /tmp/sent | cut -d ' ' -f 1)"
echo "received  sha256 $(sha256sum < /tmp/at-us | cut -d ' ' -f 1)"
