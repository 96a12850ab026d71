#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Has each allocation fail that the probe of a driver makes whose memory user space maps.

test=mmap_sweep
. /mapped.sh
. /failures.sh

sweep_probe "$device"
[ $failed -gt 5 ] || result "failed: only $failed of $number probes failed"

said=$(mapper $file $driver/unbind "$device") || result "failed: $said"
give_back
result "passed: $number allocations, $failed of them made the probe fail"
