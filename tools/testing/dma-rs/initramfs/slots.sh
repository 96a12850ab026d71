#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# For the tests that pull devices out of their slots: they source this, with the driver's folder in
# $driver, and a function pull, which is given all devices of a port. What switches off the power of
# a slot loses what is in it: the machine takes the devices away, at once and for good.

# slot_control: finds the port's slot control register: its offset, and in octal the bytes that
# are in it, and those that switch the power, its indicator and the port's interrupt off.
slot_control() {
	set -- $(od -An -v -tu1 -N256 "$port/config")
	# The list of capabilities; 16 is the one of PCI Express.
	eval "at=\${$((0x34 + 1))}"
	while eval "[ \${$((at + 1))} != 16 ]"; do
		eval "at=\${$((at + 2))}"
		[ "$at" != 0 ] || return 1
	done
	at=$((at + 0x18))
	eval "set -- \${$((at + 1))} \${$((at + 2))}"
	on=$(printf '\\%o' "$1" "$2")
	off=$(printf '\\%o' $(($1 & ~0x20)) $(($2 | 7)))
}

# switch: writes to the slot control register, all of it at once.
switch() {
	dd of="$port/config" bs=2 seek=$((at / 2)) conv=notrunc 2> /dev/null
}

is_gone() {
	[ ! -e "$devices/$1" ] && [ ! -e "$driver/$1" ]
}

# cpus 0|1: switches all CPUs but the first off, or on.
cpus() {
	for cpu in /sys/devices/system/cpu/cpu[1-9]*/online; do
		echo "$1" > "$cpu" || result "failed: ${cpu%/online} cannot be switched"
	done
}

# cycle: switches the port's power off, and on. Only one CPU runs when it goes off: QEMU frees a
# device, also if another CPU is just writing to its registers, and that ends QEMU. And a slot that
# is off is empty as far as the port's driver is concerned: to notice that something went, it must
# find the power on.
cycle() {
	cpus 0
	printf "$off" | switch || result "failed: cannot switch ${port##*/} off"
	cpus 1
	printf "$on" | switch || result "failed: cannot switch ${port##*/} on"
}

# gone DEVICE: whether it is, soon. Counts it in $removed.
gone() {
	removed=$((removed + 1))
	within 5 is_gone "$1" || result "failed: $1 is still there"
}

# pull_all: pulls all devices of all ports that have some of ours.
pull_all() {
	removed=0
	for port in $devices/*; do
		set -- "$port"/????:??:??.?
		[ -e "$driver/${1##*/}" ] || continue
		slot_control || result "failed: ${port##*/} has no slot"
		pull "$@"
	done
	[ $removed -gt 0 ] || result "failed: no device of ours is in a slot"
}

# The port's driver takes two locks in one order and in the other: lockdep says so, and goes off.
echo "<6>dma-rs-tolerate: WARNING: possible circular locking dependency detected" > /dev/kmsg
