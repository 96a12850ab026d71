#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Looks for leaks. Twice, five seconds apart: the detector ignores young objects, and those that
# still change.

echo scan > /sys/kernel/debug/kmemleak
sleep 5
echo scan > /sys/kernel/debug/kmemleak
head -n 300 /sys/kernel/debug/kmemleak | while IFS= read -r line; do
	echo "<4>kmemleak| $line" > /dev/kmsg
done
