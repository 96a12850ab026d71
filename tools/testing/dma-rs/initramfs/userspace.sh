#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# For the tests in the user space of the host: sourced instead of pair.sh. That is at /host,
# read-only, but for a folder at its /media, which the runner sees; the tests are at its /mnt.

. /pair.sh

# share TAG FOLDER OPTIONS: mounts what the runner shares.
share() {
	mount -t 9p -o "trans=virtio,version=9p2000.L,msize=262144,$3" "$1" "$2" ||
		result "failed: cannot mount $1"
}

# in_host COMMAND...: carries it out there. By its path: busybox would have an env of its own.
in_host() {
	chroot /host /usr/bin/env -i HOME=/tmp LANG=C.UTF-8 PYTHONDONTWRITEBYTECODE=1 \
		PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "$@"
}

over() {
	in_host ip netns exec peer "$@"
}

# allow_ipv6 COMMAND...: lets interfaces have IPv6, in the namespace in which that runs a command.
allow_ipv6() {
	for which in all default; do
		"$@" sh -c "echo 0 > /proc/sys/net/ipv6/conf/$which/disable_ipv6"
	done
}

# has_address: whether the other end does; its station is asked for.
has_address() {
	in_host ping -q -c 1 -W 1 192.0.2.2 > /dev/null 2>&1
}

# separate: gives the other end a namespace, and both ends addresses.
separate() {
	in_host ip netns add peer
	allow_ipv6 over
	in_host ip link set "$interface" netns peer || result "failed: cannot move $interface"
	for where in in_host over; do
		end=$mine
		number=1
		[ $where = in_host ] || end=$interface number=2
		$where ip addr add 192.0.2.$number/24 dev "$end"
		$where ip addr add 2001:db8::$number/64 dev "$end" nodad
		$where ip link set "$end" up
		$where ip link set lo up
	done
	within 20 has_address || result "failed: the peer does not answer"
}

# reunite: ends that namespace, and waits until the other end is back.
reunite() {
	in_host ip netns del peer
	within 20 [ -e "/sys/class/net/$interface" ] || result "failed: the peer does not come back"
}

mkdir /host /dev/shm
mount -t configfs none /sys/kernel/config
mount -t cgroup2 none /sys/fs/cgroup
share root /host ro,cache=loose
share tests /host/mnt ro,cache=loose
share results /host/media rw
for folder in proc sys dev; do
	mount -o rbind /$folder /host/$folder
done
for folder in tmp run var/tmp; do
	mount -t tmpfs none /host/$folder
done
ln -s /proc/self/fd /dev/fd
in_host ip link set lo up
allow_ipv6 in_host
