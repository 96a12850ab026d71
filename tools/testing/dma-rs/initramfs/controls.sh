#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Makes the kernel misbehave: each argument names what is to go wrong. In the log it stands between
# two lines of ours, and so must what the oracles say about it. An oracle that speaks later is
# waited for here, or by the code that misbehaves.

debugfs=/sys/kernel/debug
drivers=/sys/bus/pci/drivers
stall=/sys/module/rcupdate/parameters/rcu_exp_cpu_stall_timeout

for device in $drivers/dma_rs_edu/*:*; do
	device=$(basename "$device")
	break
done
echo "$device" > $drivers/dma_rs_edu/unbind
echo dma_rs_controls > "/sys/bus/pci/devices/$device/driver_override"
echo "$device" > $drivers/dma_rs_controls/bind

# It stops after the first otherwise.
echo 1 > $debugfs/dma-api/all_errors

for name; do
	echo "<6>dma-rs: control $name begins" > /dev/kmsg

	# In milliseconds; as long as for other stalls otherwise, which is for slow hosts.
	[ "$name" != stall-rcu ] || echo 200 > $stall

	# An Oops ends the process that writes.
	(echo "$name" > $debugfs/dma_rs_controls/run)

	case "$name" in
	forget-memory) sh /leaks.sh ;;
	stall-rcu) echo 0 > $stall ;;
	esac

	echo "<6>dma-rs: control $name ended" > /dev/kmsg
done
