#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# The demonstration in the guest: random bytes go to each edu device by DMA and come back, and
# through it in pieces; checksums are compared. Then a NIC sends itself frames, through its rings,
# an NVMe device carries out commands in the order that suits it, and a network interface talks to
# another one.
# What the DMA API was called for is counted by its tracepoints, not by the drivers. Each device has
# a folder of its own in debugfs.

. /nics.sh

tracefs=/sys/kernel/tracing
# The device takes one byte less than its 4096 bytes of memory.
size=4095
# More than it takes at once.
long=10000
tested=0
verdict=PASS

title() {
	echo
	echo "== $* =="
}

fail() {
	echo "$*"
	verdict=FAIL
}

# compare FILE FILE: shows both checksums.
compare() {
	sent=$(sha256sum < "$1")
	received=$(sha256sum < "$2")
	echo "sent      sha256 ${sent%% *}"
	echo "received  sha256 ${received%% *}"
	if [ "$sent" = "$received" ]; then
		echo "identical"
	else
		fail "DIFFERENT"
	fi
}

# said DRIVER: what a driver printed.
said() {
	dmesg | sed 's/^\[[^]]*\] //' | grep "^$1 " | head -n 20
}

# calls FUNCTION DEVICE [DIRECTION]: how often the DMA API was called for the device.
calls() {
	grep -c "$1: $2 ${3:+dir=$3 }" /tmp/trace
}

# ratio NUMBER NUMBER: with two decimals.
ratio() {
	hundredths=$(($1 * 100 / $2))
	printf '%d.%02d' $((hundredths / 100)) $((hundredths % 100))
}

title "What the driver said"
said dma_rs_edu

mount -t tracefs none $tracefs
echo 1 > $tracefs/events/dma/enable

for folder in "$debugfs"/dma_rs_edu-*/; do
	[ -e "$folder/memory" ] || continue
	tested=$((tested + 1))
	device=$(basename "$folder")
	device=${device#dma_rs_edu-}
	: > $tracefs/trace

	title "$device: $size random bytes there and back"
	head -c $size /dev/urandom > /tmp/sent
	dd if=/tmp/sent of="$folder/memory" bs=$size 2> /tmp/error ||
		fail "writing failed: $(head -n 1 /tmp/error)"
	dd if="$folder/memory" of=/tmp/received bs=$size 2> /tmp/error ||
		fail "reading failed: $(head -n 1 /tmp/error)"
	compare /tmp/sent /tmp/received

	title "$device: $long random bytes through the device, in pieces"
	head -c $long /dev/urandom > /tmp/sent
	dd if=/tmp/sent of="$folder/copy" bs=$long 2> /tmp/error ||
		fail "copying failed: $(head -n 1 /tmp/error)"
	cat "$folder/copy" > /tmp/received
	compare /tmp/sent /tmp/received

	title "$device: what the driver counted"
	cat "$folder/stats" || fail "no statistics"

	title "$device: what the DMA API was called for"
	cat $tracefs/trace > /tmp/trace
	maps=$(calls dma_map_phys "$device")
	unmaps=$(calls dma_unmap_phys "$device")
	echo "maps: $maps, unmaps: $unmaps"
	echo "syncs for the CPU: $(calls dma_sync_single_for_cpu "$device")," \
		"for the device: $(calls dma_sync_single_for_device "$device")"
	# One of each for the two transfers, and for the two buffers of the copy.
	[ "$maps" = 4 ] && [ "$unmaps" = 4 ] || fail "expected 4 maps and 4 unmaps"
done

if [ "$tested" = 0 ]; then
	fail "no edu device is bound to the driver: nothing in $debugfs/dma_rs_edu-*"
fi

# exchange FRAMES BYTES: has the NIC send itself frames, and checks what it reports, if it does.
exchange() {
	if ! traffic "$device" "$1" "$2"; then
		fail "$1 frames of $2 bytes: refused"
		return 1
	fi
	[ "$frames $mismatches $lost" = "$1 0 0" ] ||
		fail "$1 frames of $2 bytes: $frames arrived, $mismatches others, $lost are lost"
	return 0
}

echo 0 > $tracefs/events/dma/enable
set -- $(on_bus)
device=$1
if [ -z "$device" ] || ! own "$device"; then
	fail "no NIC is there, or it cannot be bound to our driver"
else
	title "What the driver of rings said"
	said dma_rs_e1000
	cat "$debugfs/dma_rs_e1000-$device/state"

	# The clock counts instructions. The kernel's oracles execute most of them.
	title "$device: frames through its rings, sent to itself"
	row='%6s %7s %11s %5s %17s %16s\n'
	printf "$row" bytes frames mismatches lost 'frames/10^6 inst.' 'bytes/10^6 inst.'
	for size in 60 512 1514 9000; do
		exchange 1024 $size || continue
		printf "$row" $size $frames $mismatches $lost \
			$(ratio $((frames * 1000000)) $nanoseconds) \
			$((bytes * 1000000 / nanoseconds))
	done

	title "$device: what the DMA API and the device were called for, per frame"
	row='%6s %5s %7s %14s %16s %10s\n'
	printf "$row" bytes maps unmaps 'syncs for CPU' 'syncs for device' doorbells
	# The driver posts 32 frames with one doorbell.
	batch=32
	sent=256
	for size in 60 512 1514 9000; do
		: > $tracefs/trace
		echo 1 > $tracefs/events/dma/enable
		exchange $sent $size || continue
		echo 0 > $tracefs/events/dma/enable
		cat $tracefs/trace > /tmp/trace

		printf "$row" $size $(ratio $(calls dma_map_phys "$device") $sent) \
			$(ratio $(calls dma_unmap_phys "$device") $sent) \
			$(ratio $(calls dma_sync_single_for_cpu "$device") $sent) \
			$(ratio $(calls dma_sync_single_for_device "$device") $sent) \
			$(ratio $doorbells $sent)

		[ "$(calls dma_map_phys "$device" TO_DEVICE)" = $sent ] ||
			fail "expected that each frame is mapped once to be sent"
		[ "$(calls dma_map_phys "$device" FROM_DEVICE)" = 0 ] &&
			[ "$(calls dma_unmap_phys "$device" FROM_DEVICE)" = 0 ] ||
			fail "expected that buffers stay mapped which frames are received into"
		[ $doorbells -le $((2 * sent / batch)) ] ||
			fail "expected one doorbell for each ring and batch of $batch frames"
	done
fi

# The first NVMe device of QEMU, which is nobody else's.
device=
for path in /sys/bus/pci/devices/*; do
	[ "$(cat "$path/vendor" "$path/device" | tr '\n' ' ')" != "0x1b36 0x0010 " ] ||
		device=${device:-${path##*/}}
done
folder=$debugfs/dma_rs_nvme-$device
if [ -n "$device" ]; then
	echo dma_rs_nvme > "/sys/bus/pci/devices/$device/driver_override"
	echo "$device" > /sys/bus/pci/drivers_probe
fi
if [ ! -e "$folder/exchange" ]; then
	fail "no NVMe device is there, or it cannot be bound to our driver"
else
	title "What the driver of queues said"
	said dma_rs_nvme

	title "$device: blocks written, read back, compared; all commands of a queue in flight"
	row='%6s %6s %10s %11s %11s %10s %11s %11s\n'
	printf "$row" bytes queues 'in flight' 'bytes moved' mismatches doorbells \
		interrupts overtakers
	# One page, two, and lists of pages.
	for size in 4096 8192 65536 131072; do
		if ! echo $size > "$folder/exchange"; then
			fail "commands of $size bytes: refused"
			continue
		fi
		while read -r name value; do
			eval "$name='$value'"
		done < "$folder/exchange"
		printf "$row" $size $pairs $in_flight $bytes $mismatches $doorbells \
			$interrupts $overtakers

		[ "$in_flight $mismatches $bytes" = "64 0 $((pairs * 2 * 64 * size))" ] ||
			fail "expected 64 commands in flight, and what was written"
		[ "$doorbells" = $((pairs * 2)) ] ||
			fail "expected one doorbell for all that is written or read at once"
	done
	echo
	echo "The last queue was done with its last reads, of $size bytes, in this order:"
	echo "$order"
fi

if [ -e /sys/bus/pci/drivers/dma_rs_e1000_net ]; then
	title "A network interface and its peer: the kernel's own driver, then ours"
	sh /demo_interface.sh || fail "our network interface does not carry what it should"
fi

echo
echo "dma-rs: verdict: $verdict"
