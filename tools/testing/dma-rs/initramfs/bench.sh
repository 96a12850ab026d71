#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Counts what DMA costs in C and in Rust: the operations of the benchmark, frames through a NIC, and
# transfers of edu.

. /nics.sh
. /report.sh

# own DEVICE DRIVER: binds a driver to a device, which another may have.
own() {
	[ ! -e "$devices/$1/driver" ] || echo "$1" > "$devices/$1/driver/unbind"
	echo "$2" > "$devices/$1/driver_override"
	echo "$1" > "/sys/bus/pci/drivers/$2/bind"
}

# send DEVICE WHO DRIVER: has a driver send frames, and reports how many arrived, and the time.
send() {
	own "$1" "$3"
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

# move DEVICE WHO DRIVER: has a driver move bytes to a device and back, and reports the time.
move() {
	own "$1" "$3"
	memory=$debugfs/$3-$1/memory

	for len in 64 4000; do
		# The first ones warm up.
		/bin/transfers "$memory" 4 $len > /dev/null
		say "transfer $2 $len 200 $(/bin/transfers "$memory" 200 $len)"
	done
	echo "$1" > "/sys/bus/pci/drivers/$3/unbind"
}

echo > $debugfs/dma_rs_bench/run

nic=$(on_bus | head -n 1)
send "$nic" c dma_rs_bench_nic
send "$nic" rust dma_rs_e1000

for edu in /sys/bus/pci/drivers/dma_rs_edu/*:*; do
	move "${edu##*/}" c dma_rs_bench_edu
	move "${edu##*/}" rust dma_rs_edu
done
say end
