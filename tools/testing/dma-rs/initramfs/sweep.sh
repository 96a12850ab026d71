#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Has each allocation fail that the edu driver's probe makes. When all is over the device works.

test=failure_sweep
. /transfers.sh
. /failures.sh

for path in $driver/*:*; do
	device=${path##*/}
	break
done
[ -e "$driver/$device" ] || result "failed: no device is bound"

sweep_probe "$device"
[ $failed -gt 10 ] || result "failed: only $failed of $number probes failed"
works "$device" || result "failed: the device does not work afterwards"

result "passed: $number allocations, $failed of them made the probe fail"
