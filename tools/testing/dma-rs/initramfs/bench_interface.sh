#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Counts what the frames of a network interface cost, with the kernel's own driver and with ours, on
# the same device. Its cable goes to a device of the kernel's own driver, which is in a network
# namespace of its own. There is one CPU, and its clock tells instructions.

test=bench_interface
. /pair.sh
. /pktgen.sh
. /report.sh

frames=20000
warm=1000
bytes=$((32 << 20))
# A station that the cable does not lead to. QEMU looks in the table of groups, too, whose hash this
# must not have.
nobody=02:00:00:00:5a:a5

# flood WHO INTERFACE STATION SIZE: has frames sent. Leaves the instructions in $spent: of all that
# happens until the last one was sent, as the generator says in microseconds. It is never idle.
flood() {
	# The first ones warm up.
	pktgen "$1" "$2" "$3" "$4" $warm
	pktgen "$1" "$2" "$3" "$4" $frames
	spent=${generated#*: OK: }
	spent=${spent%%(*}000
}

# row NAME WHO TIMES INSTRUCTIONS: reports it.
row() {
	say "op interface/$1 $2 $3 $4 $4"
}

# transfer WHO TO FROM: sends bytes by TCP, from somebody's end to another's. Leaves in $spent the
# instructions of that.
transfer() {
	$3 nc -l -p 5000 < /tmp/pause > /dev/null &
	listener=$!
	pause 0.5
	start_counting
	head -c $bytes /dev/zero | $1 nc "$2" 5000 > /dev/null
	wait $listener
	stop_counting
}

# count WHO: counts all, with the driver that our end has.
count() {
	open
	within 20 answers || result "failed: the peer does not answer"
	us=$(cat "/sys/class/net/$mine/address")

	for size in 60 1514; do
		flood "" "$mine" $nobody $size
		row send/$size "$1" $frames "$spent"
		flood over "$interface" $nobody $size
		nothing=$spent
		received=$(counted rx_packets)
		flood over "$interface" "$us" $size
		received=$(($(counted rx_packets) - received))
		[ $received = $((warm + frames)) ] ||
			result "failed: $mine has received $received of $((warm + frames)) frames"
		row receive/$size "$1" $frames $((spent - nothing))
	done

	# For each KiB.
	transfer "" $there over
	row tcp-send "$1" $((bytes >> 10)) "$spent"
	transfer over $here ""
	row tcp-receive "$1" $((bytes >> 10)) "$spent"
}

separate
claim e1000
count c
claim dma_rs_e1000_net
count rust
say end
