#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Times mapping and unmapping in C and in Rust, by as many processes at a time as there are CPUs.

. /report.sh

cpus=$(grep -c ^processor /proc/cpuinfo)

for round in 1 2 3 4 5; do
	for who in c rust; do
		for _ in $(seq "$cpus"); do
			echo "$who 200000" > /sys/kernel/debug/dma_rs_bench/parallel &
		done
		wait
	done
done
say end
