#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Has each allocation fail that the e1000 driver's probe makes, with all buffers of its receive
# ring. When all is over the device works.

test=nic_failure_sweep
. /nics.sh
. /failures.sh

set -- $(on_bus)
own "$1" || result "failed: cannot bind $1"

sweep_probe "$1"
# Each of the receive buffers is one.
[ $failed -gt 64 ] || result "failed: only $failed of $number probes failed"
works "$1" || result "failed: the device does not work afterwards"
disown "$1"

result "passed: $number allocations, $failed of them made the probe fail"
