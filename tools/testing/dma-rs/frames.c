// SPDX-License-Identifier: GPL-2.0
/*
 * Makes, sends and receives Ethernet frames: at a network interface, or at files of our driver, of
 * which a write sends a frame, and a read returns the next one. In files with many of them, each
 * frame comes after its length, two bytes in network order.
 *
 * Built with the kernel's nolibc, which is included by the command line.
 */

#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/socket.h>
#include <linux/virtio_net.h>

#define TYPE ETH_P_802_EX1
#define SHORTEST 60
#define LONGEST 1514

#define PF_PACKET 17
#define SOCKET_RAW 3
#define SOCKET_LEVEL 1
#define PACKET_LEVEL 263
#define RECEIVE_BUFFER_FORCE 33

/* Where the checksum is in what it is of, as in TCP. */
#define CHECKSUM 16

static const int room = 1 << 20;

static unsigned short swapped(unsigned short value)
{
	return (unsigned short)(value << 8 | value >> 8);
}

static void fail(const char *what)
{
	perror(what);
	exit(1);
}

static int open_file(const char *path, int flags)
{
	int fd = open(path, flags, 0600);

	if (fd < 0)
		fail(path);
	return fd;
}

static void write_all(int fd, const void *data, size_t len)
{
	if (write(fd, data, len) != (ssize_t)len)
		fail("write");
}

/* Returns whether there was anything. */
static int read_all(int fd, unsigned char *data, size_t len)
{
	size_t have = 0;

	while (have < len) {
		ssize_t count = read(fd, data + have, len - have);

		if (count < 0)
			fail("read");
		if (count == 0)
			break;
		have += count;
	}
	if (have && have < len) {
		fprintf(stderr, "the file ends in the middle of a frame\n");
		exit(1);
	}
	return have > 0;
}

static int interface_index(const char *name)
{
	char path[64], text[16] = "";
	int fd;

	snprintf(path, sizeof(path), "/sys/class/net/%s/ifindex", name);
	fd = open_file(path, O_RDONLY);
	if (read(fd, text, sizeof(text) - 1) <= 0)
		fail(path);
	close(fd);
	return atoi(text);
}

static int open_socket(const char *interface)
{
	struct sockaddr_ll address = {
		.sll_family = PF_PACKET,
		.sll_protocol = swapped(TYPE),
		.sll_ifindex = interface_index(interface),
	};
	/* Without a protocol, nothing is received before it is bound to the interface. */
	int fd = syscall(__NR_socket, PF_PACKET, SOCKET_RAW, 0);

	if (fd < 0)
		fail("socket");
	if (syscall(__NR_setsockopt, fd, SOCKET_LEVEL, RECEIVE_BUFFER_FORCE, &room,
		    sizeof(room)) < 0)
		fail("setsockopt");
	if (syscall(__NR_bind, fd, &address, sizeof(address)) < 0)
		fail("bind");
	return fd;
}

static int open_port(const char *port, int flags)
{
	return port[0] == '/' ? open_file(port, flags) : open_socket(port);
}

/* Random frames of all lengths, the shortest first, for a station, which is six numbers in hex. */
static void make(const char *path, int count, const char *station)
{
	int fd = open_file(path, O_WRONLY | O_CREAT | O_TRUNC);
	int random = open_file("/dev/urandom", O_RDONLY);

	for (int i = 0; i < count; i++) {
		unsigned char data[2 + LONGEST], *frame = data + 2;
		int len = SHORTEST;

		if (count > 1)
			len += i * (LONGEST - SHORTEST) / (count - 1);

		read_all(random, frame, len);
		for (int byte = 0; byte < ETH_ALEN; byte++)
			frame[byte] = strtol(station + 3 * byte, NULL, 16);
		/* Locally administered, of one station. */
		frame[ETH_ALEN] = 2;
		frame[2 * ETH_ALEN] = TYPE >> 8;
		frame[2 * ETH_ALEN + 1] = TYPE & 0xff;

		data[0] = len >> 8;
		data[1] = len & 0xff;
		write_all(fd, data, len + 2);
	}
}

static void send_frames(const char *port, const char *path)
{
	int to = open_port(port, O_WRONLY);
	int from = open_file(path, O_RDONLY);
	unsigned char head[2], frame[1 << 16];

	while (read_all(from, head, sizeof(head))) {
		int len = head[0] << 8 | head[1];

		read_all(from, frame, len);
		write_all(to, frame, len);
	}
}

/*
 * The checksum of some bytes, of which the last one may stand alone. Never 0, which says that there
 * is none.
 */
static unsigned short checksum(const unsigned char *data, int len)
{
	unsigned int sum = 0;

	for (int at = 0; at < len; at += 2)
		sum += data[at] << 8 | (at + 1 < len ? data[at + 1] : 0);
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return sum == 0xffff ? 0xffff : ~sum;
}

static void set_checksum(unsigned char *data, unsigned short value)
{
	data[CHECKSUM] = value >> 8;
	data[CHECKSUM + 1] = value & 0xff;
}

/* Gives frames in a file a checksum of what they have from a byte on, if they have that much. */
static void sum(const char *path, int start)
{
	int file = open_file(path, O_RDWR);
	unsigned char head[2], frame[1 << 16];

	while (read_all(file, head, sizeof(head))) {
		int len = head[0] << 8 | head[1];

		read_all(file, frame, len);
		if (len < start + CHECKSUM + 2)
			continue;

		set_checksum(frame + start, 0);
		set_checksum(frame + start, checksum(frame + start, len - start));
		if (lseek(file, -len, SEEK_CUR) < 0)
			fail(path);
		write_all(file, frame, len);
	}
}

/* Sends frames that sum() has made, and leaves the checksums to the interface. */
static void send_unsummed(const char *interface, const char *path, int start)
{
	static const int on = 1;
	int to = open_socket(interface);
	int from = open_file(path, O_RDONLY);
	unsigned char head[2], data[sizeof(struct virtio_net_hdr) + (1 << 16)];
	unsigned char *frame = data + sizeof(struct virtio_net_hdr);

	if (syscall(__NR_setsockopt, to, PACKET_LEVEL, PACKET_VNET_HDR, &on, sizeof(on)) < 0)
		fail("setsockopt");
	while (read_all(from, head, sizeof(head))) {
		struct virtio_net_hdr about = { 0 };
		int len = head[0] << 8 | head[1];

		read_all(from, frame, len);
		if (len >= start + CHECKSUM + 2) {
			about.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM;
			about.csum_start = start;
			about.csum_offset = CHECKSUM;
			set_checksum(frame + start, 0);
		}
		memcpy(data, &about, sizeof(about));
		write_all(to, data, sizeof(about) + len);
	}
}

/* Until there were that many, or none came for some seconds. Listens when the file is there. */
static void receive(const char *port, const char *path, int count, int seconds)
{
	int from = open_port(port, O_RDONLY);
	int to = open_file(path, O_WRONLY | O_CREAT | O_EXCL);
	int silent = 0;

	while (count && silent < seconds) {
		static unsigned char data[1 << 16];
		struct pollfd ready = { .fd = from, .events = POLLIN };
		ssize_t len = 0;

		if (poll(&ready, 1, 1000))
			len = read(from, data + 2, sizeof(data) - 2);
		if (len < 0)
			fail(port);
		if (len == 0) {
			silent++;
			continue;
		}

		silent = 0;
		count--;
		data[0] = len >> 8;
		data[1] = len & 0xff;
		write_all(to, data, len + 2);
	}
}

int main(int argc, char **argv)
{
	const char *command = argc > 1 ? argv[1] : "";

	if (argc == 5 && !strcmp(command, "make")) {
		make(argv[2], atoi(argv[3]), argv[4]);
	} else if (argc == 4 && !strcmp(command, "send")) {
		send_frames(argv[2], argv[3]);
	} else if (argc == 4 && !strcmp(command, "sum")) {
		sum(argv[2], atoi(argv[3]));
	} else if (argc == 5 && !strcmp(command, "send-unsummed")) {
		send_unsummed(argv[2], argv[3], atoi(argv[4]));
	} else if (argc == 6 && !strcmp(command, "receive")) {
		receive(argv[2], argv[3], atoi(argv[4]), atoi(argv[5]));
	} else {
		fprintf(stderr, "usage: frames make FILE COUNT STATION\n"
				"       frames send INTERFACE|FILE FRAMES\n"
				"       frames sum FRAMES START\n"
				"       frames send-unsummed INTERFACE FRAMES START\n"
				"       frames receive INTERFACE|FILE FRAMES COUNT SECONDS\n");
		return 2;
	}
	return 0;
}
