#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# For the tests of the NVMe driver: they source this, with their name in $test. Their devices are
# slow on purpose, so that most of the time commands are in flight.

driver=/sys/bus/pci/drivers/dma_rs_nvme

# is_ours DEVICE: whether our driver knows it.
is_ours() {
	read -r vendor < "$devices/$1/vendor"
	read -r model < "$devices/$1/device"
	[ "$vendor $model" = "0x1b36 0x0010" ]
}

. /binding.sh

# exchange DEVICE: whether blocks were written and read again, some with each command. What came of
# them is in variables that are named as in the report. Without a process.
exchange() {
	report=$debugfs/dma_rs_nvme-$1/exchange
	order=
	{
		echo 4096 > "$report" || return 1
		while read -r name value; do
			eval "$name='$value'"
		done < "$report"
	} 2> /dev/null
	# The last line, which isn't there if the device went before it was read.
	[ -n "$order" ]
}

# works DEVICE: whether what is written is what is read.
works() {
	exchange "$1" && [ "$mismatches" = 0 ]
}

# keep_busy DEVICE: writes and reads until that is refused, or /tmp/enough is there; for the
# background. Fails if what was read is not what was written. There is a line in /tmp/runs-DEVICE
# for each time, and the file exists from the beginning on.
keep_busy() {
	: > "/tmp/runs-$1"
	while [ ! -e /tmp/enough ] && exchange "$1"; do
		if [ "$mismatches" != 0 ]; then
			echo "<6>dma-rs: $1: $mismatches commands were wrong" > /dev/kmsg
			exit 1
		fi
		echo >> "/tmp/runs-$1"
	done
	exit 0
}

# busy DEVICE: keeps it busy in the background: $transfer, which has begun.
busy() {
	rm -f "/tmp/runs-$1"
	keep_busy "$1" &
	transfer=$!
	within 20 [ -e "/tmp/runs-$1" ] || result "failed: nothing is written to $1"
}

# read_ahead DEVICE: has it read as many blocks as can be at once. They are in flight for a while.
read_ahead() {
	echo > "$debugfs/dma_rs_nvme-$1/ahead" || result "failed: $1 reads nothing"
}

# may_interrupt DEVICE: whether the device may be stopped while commands are in flight. QEMU 7.2
# ends then, now and again: it completes a command whose queue is gone. Since 10 it was not seen
# to. The firmware of its devices has its version; older ones say "1.0".
may_interrupt() {
	version=$(dmesg | sed -n "s/.*dma_rs_nvme $1: firmware \([0-9]*\)\..*/\1/p" | tail -n 1)
	[ "${version:-0}" -ge 10 ]
}
