#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# For what is counted or timed: they source this.

# say WORD VALUE...: reports to the log. After the last report comes "end".
say() {
	echo "<6>dma-rs-bench: $*" > /dev/kmsg
}

# start_counting, stop_counting: the CPU executes $spent instructions in between, without those of
# the thread that takes what time is left.
start_counting() {
	echo 1 > $debugfs/dma_rs_bench_busy
	spent=$(cat $debugfs/dma_rs_bench_busy)
}

stop_counting() {
	spent=$(($(cat $debugfs/dma_rs_bench_busy) - spent))
	echo 0 > $debugfs/dma_rs_bench_busy
}
