#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# For what is counted or timed: they source this.

# say WORD VALUE...: reports to the log. After the last report comes "end".
say() {
	echo "<6>dma-rs-bench: $*" > /dev/kmsg
}
