#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Loads a module that leaves memory behind with a device, which another driver has, and a callback
# with its fence. It must stay until the device was stopped, that memory was freed, and the callback
# was called. Then one whose driver leaves memory behind when the device is unbound, since the
# module is unloaded: that memory must be freed, too.

test=modules
. /transfers.sh

module=dma_rs_borrower

# used TIMES: whether so many things keep the module from being unloaded.
used() {
	[ "$(cat /sys/module/$module/refcnt)" = "$1" ]
}

unload() {
	rmmod $module 2> /dev/null
}

for path in $driver/????:??:??.?; do
	device=${path##*/}
	break
done
[ -e "$driver/$device" ] || result "failed: no device is bound"
works "$device" || result "failed: the device does not work to begin with"

before=$(leaked)
insmod /$module.ko || result "failed: cannot be loaded"
used 2 || result "failed: the memory and the callback that are left behind do not keep the module"
! unload || result "failed: the module was unloaded before the memory was freed"

echo "$device" > $driver/unbind || result "failed: cannot be unbound"
used 0 || result "failed: the device was stopped, but something keeps the module"
unload || result "failed: cannot be unloaded afterwards"

module=dma_rs_leaver
insmod /$module.ko || result "failed: $module cannot be loaded"
echo $module > "$devices/$device/driver_override"
echo "$device" > /sys/bus/pci/drivers/$module/bind || result "failed: $module cannot be bound"
used 0 || result "failed: something keeps $module"
unload || result "failed: $module cannot be unloaded"
[ "$(leaked)" = "$before" ] || result "failed: $module has leaked memory"
echo > "$devices/$device/driver_override"

echo "$device" > $driver/bind || result "failed: cannot be bound again"
works "$device" || result "failed: the device does not work afterwards"
[ "$(leaked)" = "$before" ] || result "failed: memory was leaked"

result "passed"
