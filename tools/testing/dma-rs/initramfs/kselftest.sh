#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# The kernel's own tests of network interfaces. "todo" in the folder for results has a line for
# each: the driver that our end is to have, what the test is told about the ends, and its path among
# the selftests. What a test says goes to a file beside that, named like it with "_" for "/", and
# how it ended to another, with ".status".

test=kselftest
. /userspace.sh

tests=/mnt/tools/testing/selftests

# attempt KIND PATH: has our end try a test.
attempt() {
	name=/host/media/$(echo "$2" | tr / _)
	[ "$1" != remote ] || separate
	ends=
	[ "$1" != pair ] || ends="$mine $interface"
	in_host NETIF="$mine" NETIF_CREATE=no KSFT_MACHINE_SLOW=yes \
		REMOTE_TYPE=netns REMOTE_ARGS=peer \
		LOCAL_V4=192.0.2.1 REMOTE_V4=192.0.2.2 LOCAL_V6=2001:db8::1 REMOTE_V6=2001:db8::2 \
		timeout 240 sh -c "cd $tests/${2%/*} && exec ./${2##*/} $ends" \
		> "$name" 2>&1 < /dev/null
	echo $? > "$name.status"
	[ "$1" != remote ] || reunite
}

tried=0
while read -r wanted kind script; do
	echo "<6>dma-rs: $wanted: $script" > /dev/kmsg
	claim "$wanted"
	attempt "$kind" "$script"
	release
	in_host ip link set "$interface" down
	in_host ip addr flush dev "$interface"
	tried=$((tried + 1))
done < /host/media/todo

result "passed: $tried tests were tried"
