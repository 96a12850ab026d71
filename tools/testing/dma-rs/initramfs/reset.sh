#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Resets a device, by the bus that it is alone on, while it moves data: soon after a transfer began,
# later, and late.

test=reset
. /transfers.sh

reset() {
	pause "$when"
	echo 1 > "$devices/$device/reset"
}

# With others in the slot, the first of them has the attribute too, in vain.
for port in $devices/*; do
	set -- "$port"/????:??:??.?
	[ $# != 1 ] || [ ! -e "$1/reset" ] || break
done
device=${1##*/}
[ -e "$driver/$device/reset" ] || result "failed: no device that is bound can be reset"

lost=0
before=$(leaked)
works "$device" || result "failed: the device does not work to begin with"
for when in 0.01 0.03 0.06; do
	for way in read write; do
		disturb $way "$device" reset
	done
done
[ "$(leaked)" = "$before" ] || result "failed: memory was leaked"

result "passed: 6 times, $lost transfers ended with an error"
