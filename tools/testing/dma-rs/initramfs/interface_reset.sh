#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# The bus resets a network interface while it sends, and while its rings are changed: it goes on by
# itself.

test=interface_reset
. /nics.sh
driver=/sys/bus/pci/drivers/dma_rs_e1000_net

# sent: how many frames the interface has sent.
sent() {
	cat "/sys/class/net/$name/statistics/tx_packets"
}

# has_carrier: whether the interface has a link.
has_carrier() {
	read -r carrier < "/sys/class/net/$name/carrier" && [ "$carrier" = 1 ]
} 2> /dev/null

# sends: whether frames go out.
sends() {
	seen=$(sent)
	frames send "$name" /tmp/frames && [ "$(sent)" -gt "$seen" ]
} 2> /dev/null

# change: what is done meanwhile, as long as the reset takes. That may be refused.
change() {
	case "$1" in
	nothing) frames send "$name" /tmp/frames ;;
	rings) ethtool rings "$name" $length $length ;;
	esac 2> /dev/null
}

before=$(leaked)
frames make /tmp/frames 20 02:00:00:00:00:07
alone
for net in "$devices/$device"/net/*; do
	name=${net##*/}
done
ip link set "$name" up || result "failed: cannot open $name"

for length in 128 4096 64; do
	for meanwhile in nothing rings; do
		within 10 has_carrier || result "failed: no carrier"
		within 10 sends || result "failed: nothing is sent"
		echo 1 > "$devices/$device/reset" &
		reset=$!
		while kill -0 $reset 2> /dev/null; do
			change $meanwhile
		done
		wait $reset || result "failed: cannot reset it while $meanwhile is changed"
	done
done
within 10 has_carrier || result "failed: no carrier in the end"
within 10 sends || result "failed: nothing is sent in the end"
[ "$(leaked)" = "$before" ] || result "failed: memory was leaked"
echo "$device" > $driver/unbind

result "passed: 6 times"
