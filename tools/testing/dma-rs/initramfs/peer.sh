#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Has our driver talk to the kernel's own, over a cable: frames of all lengths in one direction, in
# the other, and in both at once. Random, and compared byte for byte.

test=peer
. /nics.sh

count=100
ours=
peer=

# has_carrier: whether the kernel's own driver has noticed the cable.
has_carrier() {
	read -r carrier < "/sys/class/net/$interface/carrier" && [ "$carrier" = 1 ]
} 2> /dev/null

# listen PORT FILE: begins to receive in the background.
listen() {
	rm -f "$2"
	frames receive "$1" "$2" $count 5 &
	transfer=$!
	within 5 [ -e "$2" ] || result "failed: cannot listen at $1"
}

# arrived WHERE SENT FILE: whether what was sent is in the file.
arrived() {
	within 20 is Z || result "failed: receiving at $1 does not end"
	wait $transfer || result "failed: cannot receive at $1"
	cmp -s "$2" "$3" ||
		result "failed: of $(wc -c < "$2") bytes, $(wc -c < "$3") arrived at $1, or others"
}

# The two ends are neighbours on the bus, and of two models.
for device in $(on_bus); do
	is_nic "$device"
	if [ "$model" = 0x100f ]; then
		peer=$device
		break
	fi
	ours=$device
done
for path in "$devices/$peer"/net/*; do
	interface=${path##*/}
done
[ -n "$ours" ] && [ -e "/sys/class/net/$interface" ] || result "failed: there is no peer"

before=$(leaked)
own "$ours" || result "failed: cannot bind $ours"
folder=$debugfs/dma_rs_e1000-$ours
ip link set "$interface" up || result "failed: cannot open $interface"
within 10 has_carrier || result "failed: $interface has no carrier"

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
