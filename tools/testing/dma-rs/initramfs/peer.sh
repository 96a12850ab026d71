#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Has our driver talk to the kernel's own, over a cable: frames of all lengths in one direction, in
# the other, and in both at once. Random, and compared byte for byte.

test=peer
. /cable.sh

before=$(leaked)
own "$ours" || result "failed: cannot bind $ours"
folder=$debugfs/dma_rs_e1000-$ours
ip link set "$interface" up || result "failed: cannot open $interface"
within 10 has_carrier "$interface" || result "failed: $interface has no carrier"

frames make /tmp/to-peer $count "$(cat "/sys/class/net/$interface/address")"
frames make /tmp/to-us $count "$(sed -n 's/^mac //p' "$folder/state")"

listen "$interface" /tmp/at-peer
frames send "$folder/send" /tmp/to-peer || result "failed: cannot send"
arrived "the peer" /tmp/to-peer /tmp/at-peer

listen "$folder/receive" /tmp/at-us
frames send "$interface" /tmp/to-us || result "failed: the peer cannot send"
arrived "our side" /tmp/to-us /tmp/at-us

listen "$interface" /tmp/at-peer
at_peer=$transfer
listen "$folder/receive" /tmp/at-us
at_us=$transfer
frames send "$interface" /tmp/to-us &
peer_sends=$!
frames send "$folder/send" /tmp/to-peer || result "failed: cannot send while the peer does"
wait $peer_sends || result "failed: the peer cannot send while we do"
transfer=$at_peer
arrived "the peer, both at once," /tmp/to-peer /tmp/at-peer
transfer=$at_us
arrived "our side, both at once," /tmp/to-us /tmp/at-us

# The kernel's own driver leaves a device in order, and takes it back.
own "$peer" || result "failed: cannot take $peer from its driver"
works "$peer" || result "failed: $peer does not work with our driver"
disown "$peer"
[ -e "$devices/$peer/net" ] || result "failed: its driver does not take $peer back"
disown "$ours"
[ "$(leaked)" = "$before" ] || result "failed: memory was leaked"

result "passed: 4 times $count frames"
