#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# For tests that flood a cable: they source this, after cable.sh. The kernel's generator sends
# frames by UDP that nobody has the address of.

# pktgen WHO... INTERFACE STATION SIZE FRAMES: sends so many to a station, by somebody, who may be
# "". Leaves what the generator says in $generated.
pktgen() {
	who=$1
	shift
	for command in "rem_device_all" "add_device $1"; do
		$who sh -c "echo $command > /proc/net/pktgen/kpktgend_0" ||
			result "failed: pktgen refuses $command"
	done
	for command in "count $4" "pkt_size $3" "dst_mac $2" "dst 10.9.0.77" "delay 0"; do
		$who sh -c "echo $command > /proc/net/pktgen/$1" ||
			result "failed: pktgen refuses $command"
	done
	$who sh -c "echo start > /proc/net/pktgen/pgctrl" || result "failed: pktgen does not start"
	generated=$($who cat "/proc/net/pktgen/$1" | grep "Result: OK") ||
		result "failed: $($who tail -n 1 "/proc/net/pktgen/$1")"
}
