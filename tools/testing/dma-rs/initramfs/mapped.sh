#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# For the tests of the sample whose memory user space maps: they source this, with their name in
# $test. The sample binds to no device by itself: it gets an edu device.

. /basics.sh

driver=/sys/bus/pci/drivers/rust_dma_mmap
edu=/sys/bus/pci/drivers/dma_rs_edu
file=/dev/dma-mmap

[ -e $driver ] || result "failed: the sample is not there"

for path in $edu/*:*; do
	device=${path##*/}
	break
done
[ -e "$edu/$device" ] || result "failed: no device is bound"

before=$(leaked)
echo rust_dma_mmap > "$devices/$device/driver_override"
echo "$device" > $edu/unbind

# give_back: to the driver that had the device.
give_back() {
	[ ! -e "$driver/$device" ] || echo "$device" > $driver/unbind
	echo > "$devices/$device/driver_override"
	echo "$device" > /sys/bus/pci/drivers_probe
	[ -e "$edu/$device" ] || result "failed: the device is lost"
}
