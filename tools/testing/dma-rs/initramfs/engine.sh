#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Whether the tests that come before this were done by the machine's DMA engine: it must have raised
# interrupts, at least as many as they have waited for.

test=engine
. /basics.sh

expected=100

count=$(awk '/zynqmp-dma/ { for (n = 2; $n ~ /^[0-9]+$/; n++) sum += $n } END { print sum + 0 }' \
	/proc/interrupts)
[ "$count" -ge $expected ] ||
	result "failed: the engine has raised $count interrupts, and not $expected"

result "passed: $count interrupts"
