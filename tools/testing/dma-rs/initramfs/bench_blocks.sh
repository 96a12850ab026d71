#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Counts what it costs to write blocks and to read them again, 64 at the same time: with the
# kernel's block layer and its own driver, and with ours, on the same device. There is one CPU,
# whose clock tells instructions. So our driver has one pair of queues.

test=bench_blocks
. /nvmes.sh
. /report.sh

size=4096
# Of 64 writes and 64 reads.
rounds=200
commands=$((rounds * 128))

# repeat TIMES FILE TEXT: has that many rounds done.
repeat() {
	for _ in $(seq "$1"); do
		echo "$3" > "$2" || result "failed: $2 refuses $3"
	done
}

# count WHO FILE TEXT: counts what is done when a text is written to a file.
count() {
	# The first ones warm up.
	repeat 10 "$2" "$3"
	start_counting
	repeat $rounds "$2" "$3"
	stop_counting
	say "op blocks/$size $1 $commands $spent $spent"
}

block=/sys/block/nvme0n1
within 20 [ -e $block/dev ] || result "failed: the kernel's own driver has no block device"
# Or each round would be the first to open it, and the last to close it.
exec 3< /dev/nvme0n1
echo none > $block/queue/scheduler
count c $debugfs/dma_rs_bench_blocks "/dev/nvme0n1 $size"
exec 3<&-

device=$(on_bus | head -n 1)
own "$device" || result "failed: cannot bind $device"
count rust "$debugfs/dma_rs_nvme-$device/exchange" $size
works "$device" || result "failed: what $device reads is not what was written"
[ "$pairs $in_flight" = "1 64" ] || result "failed: not 64 commands in flight of one pair of queues"
say end
