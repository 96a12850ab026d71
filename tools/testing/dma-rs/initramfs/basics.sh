#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# For all tests in the guest: they source this, with their name in $test.

devices=/sys/bus/pci/devices
debugfs=/sys/kernel/debug

result() {
	echo "<6>dma-rs-tolerate-end" > /dev/kmsg
	echo "<6>dma-rs: guest test $test $*" > /dev/kmsg
	exit 0
}

# pause SECONDS: without a process, which takes longer than a pause. Nobody writes to this pipe.
[ -p /tmp/pause ] || mkfifo /tmp/pause
exec 9<> /tmp/pause
pause() {
	read -r -t "$1" _ <&9 || true
}

# within SECONDS COMMAND...: whether the command succeeds so soon. Tries do not count as time: a
# slow host makes each longer.
within() {
	read -r now _ < /proc/uptime
	end=$((${now%.*} + 1 + $1))
	shift
	until "$@"; do
		read -r now _ < /proc/uptime
		[ "${now%.*}" -lt $end ] || return 1
		pause 0.01
	done
}

# is STATES: whether the process $transfer is in one of these states; Z if it ended.
is() {
	{ read -r _ _ state _ < "/proc/$transfer/stat"; } 2> /dev/null || state=Z
	case "$1" in *"$state"*) ;; *) false ;; esac
}

# finish: whether the process $transfer has succeeded. It must end soon, this way or the other.
finish() {
	within 20 is Z || result "failed: a transfer did not end within 20 s"
	wait $transfer
}

# leaked: how much was leaked so far, if the kernel counts.
leaked() {
	[ ! -e $debugfs/dma_session/total ] ||
		sed -n 's/^leaked //p' $debugfs/dma_session/total
}
