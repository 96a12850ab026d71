#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# For the tests with Internet protocols: they source this, with their name in $test. Both ends of
# the cable are open, and answer.

. /pair.sh

# part: gives ours back, and puts both ends together again.
part() {
	release
	reunite
	[ "$(leaked)" = "$before" ] || result "failed: memory was leaked"
}

before=$(leaked)
separate
claim
open
within 20 answers || result "failed: the peer does not answer"
