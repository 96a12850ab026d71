#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# For the tests that use the cable between two NICs: they source this, with their name in $test.
# One end is the device $ours, which a stub has. The other is the device $peer, of the kernel's own
# driver, whose interface is $interface.

. /nics.sh

count=100
ours=
peer=

# has_carrier INTERFACE: whether its driver has noticed the cable.
has_carrier() {
	read -r carrier < "/sys/class/net/$1/carrier" && [ "$carrier" = 1 ]
} 2> /dev/null

# listen PORT FILE: begins to receive in the background.
listen() {
	rm -f "$2"
	frames receive "$1" "$2" $count 5 &
	transfer=$!
	within 5 [ -e "$2" ] || result "failed: cannot listen at $1"
}

# arrived WHERE SENT FILE: whether what was sent is in the file.
arrived() {
	within 20 is Z || result "failed: receiving at $1 does not end"
	wait $transfer || result "failed: cannot receive at $1"
	cmp -s "$2" "$3" ||
		result "failed: of $(wc -c < "$2") bytes, $(wc -c < "$3") arrived at $1, or others"
}

# claim [DRIVER]: binds a driver of network interfaces to our end: ours, if none is named. Leaves
# the interface's name in $mine.
claim() {
	echo "${1:-dma_rs_e1000_net}" > "$devices/$ours/driver_override"
	[ ! -e "$devices/$ours/driver" ] || echo "$ours" > "$devices/$ours/driver/unbind"
	echo "$ours" > "/sys/bus/pci/drivers/${1:-dma_rs_e1000_net}/bind" ||
		result "failed: cannot bind $ours"
	for path in "$devices/$ours"/net/*; do
		mine=${path##*/}
	done
	[ -e "/sys/class/net/$mine" ] || result "failed: $ours has no interface"
}

# unbind: takes our end from its driver.
unbind() {
	echo "$ours" > "$devices/$ours/driver/unbind" ||
		result "failed: cannot unbind $ours"
}

# release: gives our end back to the stub.
release() {
	unbind
	echo > "$devices/$ours/driver_override"
	echo "$ours" > /sys/bus/pci/drivers_probe
}

# counted NAME: what our interface has counted.
counted() {
	cat "/sys/class/net/$mine/statistics/$1"
}

# no_errors: whether it has counted none.
no_errors() {
	for name in tx_dropped tx_errors rx_dropped rx_errors; do
		[ "$(counted $name)" = 0 ] || result "failed: $name: $(counted $name)"
	done
}

# The two ends are neighbours on the bus, and of two models.
for device in $(on_bus); do
	is_ours "$device"
	if [ "$model" = 0x100f ]; then
		peer=$device
		break
	fi
	ours=$device
done
for path in "$devices/$peer"/net/*; do
	interface=${path##*/}
done
[ -n "$ours" ] && [ -e "/sys/class/net/$interface" ] || result "failed: there is no peer"
