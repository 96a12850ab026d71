#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# What may go wrong with our network interface, after which it works: each allocation of opening it
# fails, and each of other rings; those that can't wait fail at random, while frames go both ways;
# the device stops reaching memory, and so is done with nothing.

test=interface_faults
. /frames.sh
. /failures.sh

flags=/sys/class/net/$mine/flags
read -r opened < "$flags"

attempt() {
	echo "$opened" > "$flags"
}

undo() {
	echo $((opened & ~1)) > "$flags"
}

is_done() {
	read -r now < "$flags"
	[ $((now & 1)) != 0 ]
}

# sweep_rings LENGTH: as sweep, with other rings. If it fails all is as it was. Most are alike, one
# for each buffer: of those some fail.
sweep_rings() {
	failed=0
	number=0
	left=0
	while [ "$left" = 0 ]; do
		number=$((number + 1 + number / 20))
		[ $number -lt $last ] || result "failed: no end after $last allocations"
		expected=$1
		ethtool rings "$mine" "$1" "$1" $number > /tmp/left 2> /dev/null || {
			failed=$((failed + 1))
			expected=64
		}
		left=$(sed -n 's/^left //p' /tmp/left)
		ethtool rings "$mine" | grep -qx "rx $expected" ||
			result "failed: not $expected descriptors after allocation $number of rings"
		has_carrier "$mine" || result "failed: no carrier after allocation $number of rings"
		[ $expected = 64 ] || ethtool rings "$mine" 64 64 ||
			result "failed: cannot have the rings of before"
	done
}

# fail_at_random PERCENT: of the allocations for frames that can't wait. dma-debug goes off if its
# own fail.
fail_at_random() {
	for cache in /sys/kernel/slab/skbuff_*; do
		echo 1 > "$cache/failslab" || result "failed: allocations for frames cannot fail"
	done
	echo Y > $debugfs/failslab/cache-filter
	echo Y > $debugfs/failslab/ignore-gfp-wait
	echo -1 > $debugfs/failslab/times
	echo "$1" > $debugfs/failslab/probability
}

# has_hung: whether the stack has noticed that frames aren't sent.
has_hung() {
	[ "$(cat "/sys/class/net/$mine/queues/tx-0/tx_timeout")" != 0 ]
}

# let_hang: takes the right to reach memory from the device, behind its driver's back.
let_hang() {
	config=$devices/$ours/config
	set -- $(od -An -v -tu1 -j4 -N2 "$config")
	printf "$(printf '\\%o' $(($1 & ~4)) "$2")" |
		dd of="$config" bs=2 seek=2 conv=notrunc 2> /dev/null
}

sweep
opening="$failed of $number"
[ $failed -gt 3 ] || result "failed: only $failed of $number times it did not open"
pause 1.2
works_still

all_may_fail
sweep_rings 128
rings=$failed
[ $failed -gt 15 ] || result "failed: only $failed times there were no other rings"
pause 1.2
works_still

floods
pause 0.2
fail_at_random 20
pause 2
fail_at_random 0
calm "after allocations that failed"
lost=$(counted rx_dropped)
[ "$lost" -gt 0 ] || result "failed: no frame was dropped for want of memory"

floods
pause 0.2
let_hang
within 30 has_hung || result "failed: nobody noticed that nothing is sent"
calm "after a hang"

end

result "passed: opening failed $opening times, rings $rings, $lost frames dropped, a hang"
