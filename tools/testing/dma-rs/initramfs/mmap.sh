#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# A program maps the memory of a device, works with it, and loses it, when the device is unbound and
# when the driver revokes it.

test=mmap
. /mapped.sh

rounds=5

for round in $(seq $rounds); do
	for name in "$device" -; do
		[ -e "$driver/$device" ] || echo "$device" > $driver/bind ||
			result "failed: cannot be bound"
		within 5 [ -c $file ] || result "failed: no $file"
		said=$(mapper $file $driver/unbind "$name") || result "failed: $said"
		[ "$said" = right ] || result "failed: $said"
	done
	echo "$device" > $driver/unbind
done

[ "$(leaked)" = "$before" ] || result "failed: memory was leaked"
give_back
result "passed: $rounds rounds"
