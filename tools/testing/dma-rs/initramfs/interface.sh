#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Our network interface talks to one of the kernel's own driver, over a cable, without any protocol:
# frames of all lengths in one direction, in the other, and in both at once. Random, and compared
# byte for byte. Then it goes down and up, sleeps, and is unbound, while frames go both ways, and
# works again each time.

test=interface
. /frames.sh

# counts: frames and bytes that were received, and that were sent.
counts() {
	echo "$(counted rx_packets) $(counted rx_bytes) $(counted tx_packets) $(counted tx_bytes)"
}

# all_counted: whether these are those of two times the frames, $bytes each time.
all_counted() {
	[ "$(counts)" = "$((2 * count)) $((2 * bytes)) $((2 * count)) $((2 * bytes))" ]
}

# set_address ADDRESS: gives ours another address.
set_address() {
	ip link set "$mine" address "$1" || result "failed: cannot have the address $1"
}

# set_flags NUMBER: sets these flags of ours, of those that say what it takes, and no others. After
# that QEMU receives nothing for a second.
promiscuous=0x100
all_groups=0x200
set_flags() {
	flags=/sys/class/net/$mine/flags
	echo $(($(cat "$flags") & ~(promiscuous | all_groups) | $1)) > "$flags" ||
		result "failed: cannot set the flags $1"
	pause 1.2
}

# takes EXPECTED FILE WHEN: whether our end takes so many of the frames in the file, which the peer
# sends.
takes() {
	seen=$(counted rx_packets)
	frames send "$interface" "$2" || result "failed: cannot send $2"
	pause 0.5
	one_way "$interface" "$mine" /tmp/to-us
	taken=$(($(counted rx_packets) - seen - count))
	[ $taken = "$1" ] || result "failed: $taken frames of $2 taken, and not $1, $3"
}

works_still

listen "$interface" /tmp/at-peer
at_peer=$transfer
listen "$mine" /tmp/at-us
at_us=$transfer
frames send "$interface" /tmp/to-us &
peer_sends=$!
frames send "$mine" /tmp/to-peer || result "failed: cannot send while the peer does"
wait $peer_sends || result "failed: the peer cannot send while we do"
transfer=$at_peer
arrived "the peer, both at once," /tmp/to-peer /tmp/at-peer
transfer=$at_us
arrived "our side, both at once," /tmp/to-us /tmp/at-us

# Each frame comes after its length, in two bytes.
bytes=$(($(wc -c < /tmp/to-us) - 2 * count))
within 5 all_counted ||
	result "failed: $(counts) counted, of $((2 * count)) frames, $((2 * bytes)) bytes each way"
no_errors

# Checksums that the stack leaves to the device, from a byte on that it can name in its eight bits,
# and from others, of which the driver computes them.
for start in 34 200 250 400; do
	frames make /tmp/sums $count "$(cat "/sys/class/net/$interface/address")"
	frames sum /tmp/sums $start || result "failed: cannot compute checksums"
	listen "$interface" /tmp/at-peer
	frames send-unsummed "$mine" /tmp/sums $start ||
		result "failed: cannot send without checksums"
	arrived "the peer, checksums from byte $start on left to the device," /tmp/sums /tmp/at-peer
done
no_errors

# What it takes besides what is for itself.
frames make /tmp/to-other $count 02:00:00:00:00:07
frames make /tmp/to-group $count 01:00:5e:00:00:07
takes 0 /tmp/to-other "at first"
takes 0 /tmp/to-group "at first"
set_flags $all_groups
takes 0 /tmp/to-other "with all groups"
takes $count /tmp/to-group "with all groups"
set_flags $promiscuous
takes $count /tmp/to-other "promiscuous"
takes $count /tmp/to-group "promiscuous"
ethtool rings "$mine" 128 128 || result "failed: cannot have rings of 128"
pause 1.2
takes $count /tmp/to-other "promiscuous, and restarted"
ethtool rings "$mine" 64 64 || result "failed: cannot have rings of 64"
set_flags 0
takes 0 /tmp/to-group "not promiscuous any more"
address=$(cat "/sys/class/net/$mine/address")
set_address 02:00:00:00:00:07
one_way "$interface" "$mine" /tmp/to-other
set_address "$address"
takes 0 /tmp/to-other "with its own address again"
works_still

# says WHAT NAME VALUE: whether ethtool says so.
says() {
	ethtool "$1" "$mine" | grep -qx "$2 $3" ||
		result "failed: $1: $(ethtool "$1" "$mine" | tr '\n' ' '), and not $2 $3"
}

says link up 1
says link speed 1000
says link duplex 1
says link autoneg 1
says link supported 0xef
says link advertising 0xef
says rings tx 64
says rings rx 64
says coalesce usecs 0
ethtool coalesce "$mine" 100 || result "failed: cannot set the time between interrupts"
says coalesce usecs 100
! ethtool coalesce "$mine" 100000 2> /dev/null || result "failed: too long a time was taken"
for lengths in "63 64" "64 63" "32 64" "64 32"; do
	! ethtool rings "$mine" $lengths 2> /dev/null || result "failed: has rings of $lengths"
done
says rings tx 64
works_still

# link_back: whether ours has a link again, and frames arrive.
link_back() {
	within 10 has_carrier "$mine" || result "failed: no link, $1"
	pause 1.2
	works_still
}

# Only 100 Mbit/s are offered; 10 and 100 are taken for granted; all are offered again. A link of
# 1000 takes two that negotiate.
ethtool link "$mine" offer 0x8 || result "failed: cannot offer one kind of link"
says link advertising 0xc8
link_back "with one kind offered"
for forced in "10 0" "100 1"; do
	ethtool link "$mine" force $forced || result "failed: cannot have a link of $forced"
	says link autoneg 0
	says link advertising 0x80
	link_back "forced to be $forced"
done
ethtool link "$mine" force 1000 1 || result "failed: cannot have a link of 1000"
says link autoneg 1
says link advertising 0xe0
link_back "with 1000 offered"
for wrong in "offer 0" "offer 0x10" "offer 0x1000f" "force 1000 0" "force 2500 1"; do
	! ethtool link "$mine" $wrong 2> /dev/null || result "failed: can $wrong"
done
says link advertising 0xe0
ethtool link "$mine" offer 0x2f || result "failed: cannot offer all kinds of links"
says link advertising 0xef
link_back "with all kinds offered"

# While both ends negotiate, for half a second, there is no link. Who changes rings then notices.
changes=/sys/class/net/$mine/carrier_changes
noticed=
for offer in 0x8 0x2f 0x8 0x2f; do
	seen=$(cat "$changes")
	ethtool link "$mine" offer $offer && ethtool rings "$mine" 128 128 ||
		result "failed: cannot have other rings while a link is negotiated"
	[ "$(cat "$changes")" = "$seen" ] || noticed=1
	within 10 has_carrier "$mine" || result "failed: no link after other rings"
done
[ "$noticed" ] || result "failed: it has a link for all that, while one is negotiated"
ethtool rings "$mine" 64 64 || result "failed: cannot have rings of 64"
link_back "with other rings"
says link advertising 0xef
says statistics device_missed 0
says messages mask 7
ethtool messages "$mine" 3 > /dev/null || result "failed: cannot choose messages"
says messages mask 3
ethtool messages "$mine" 7 > /dev/null

# device_counted NAME: what the device says it has counted.
device_counted() {
	ethtool statistics "$mine" | sed -n "s/^device_$1 //p"
}

sent=$(device_counted sent)
says test failed 0
[ "$(device_counted sent)" = "$sent" ] ||
	result "failed: a test that is not to disturb sends frames"

# healthy WHEN: whether it passes all tests of itself, also those that disturb traffic.
healthy() {
	sent=$(device_counted sent)
	ethtool test "$mine" offline > /tmp/tests || result "failed: cannot test it, $1"
	grep -qx "loopback (offline) 0" /tmp/tests && grep -qx "failed 0" /tmp/tests ||
		result "failed: $1: $(tr '\n' ' ' < /tmp/tests)"
	[ "$(device_counted sent)" -gt "$sent" ] ||
		result "failed: no frame was sent to see it loop, $1"
}

healthy "while open"
pause 1.2
works_still
ip link set "$mine" down
healthy "while closed"
open
pause 1.2
works_still

floods
for len in 128 4096 64; do
	pause 0.2
	ethtool rings "$mine" $len $len || result "failed: cannot have rings of $len"
	says rings rx $len
	pause 1.2
done
ip link set "$mine" down
ethtool rings "$mine" 256 128 || result "failed: cannot have other rings while closed"
open
says rings tx 256
calm "after other rings"
[ "$(counted rx_missed_errors)" = "$(device_counted missed)" ] ||
	result "failed: $(device_counted missed) missed, $(counted rx_missed_errors) counted"
ethtool rings "$mine" 64 64

floods
for round in $(seq 10); do
	pause 0.$round
	ip link set "$mine" down || result "failed: cannot close $mine"
	open
done
calm "after ups and downs"

floods
echo 0 > /sys/module/suspend/parameters/pm_test_delay
echo platform > /sys/power/pm_test
for round in 1 2 3; do
	pause 0.$round
	echo freeze > /sys/power/state || result "failed: cannot suspend"
done
calm "after suspends"

for round in 1 2 3 4 5; do
	floods
	pause 0.$round
	unbind
	claim
	open
	calm "after unbinding"
done

end

result "passed: frames, ups and downs, suspends, unbinding"
