#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Runs the benchmark, which reports to the log: all its operations, and frames through a NIC, in C
# and in Rust; or, after "parallel", mapping and unmapping by as many processes at a time as there
# are CPUs.

. /nics.sh

files=$debugfs/dma_rs_bench

say() {
	echo "<6>dma-rs-bench: $*" > /dev/kmsg
}

# send DEVICE WHO DRIVER: has a driver send frames, and reports how many arrived, and the time.
send() {
	echo "$3" > "$devices/$1/driver_override"
	echo "$1" > "/sys/bus/pci/drivers/$3/bind"
	report=$debugfs/$3-$1/traffic

	for len in 64 1514; do
		# The first run warms up.
		for _ in 1 2; do
			echo "4096 $len" > "$report"
		done
		while read -r name value; do
			eval "$name=$value"
		done < "$report"
		say "traffic $2 $len $frames $nanoseconds $((mismatches + lost))"
	done
	echo "$1" > "/sys/bus/pci/drivers/$3/unbind"
}

if [ "$1" != parallel ]; then
	echo > "$files/run"

	nic=$(on_bus | head -n 1)
	send "$nic" c dma_rs_bench_nic
	send "$nic" rust dma_rs_e1000
	say end
	exit
fi

cpus=$(grep -c ^processor /proc/cpuinfo)

for round in 1 2 3 4 5; do
	for who in c rust; do
		for _ in $(seq "$cpus"); do
			echo "$who 200000" > "$files/parallel" &
		done
		wait
	done
done
say end
