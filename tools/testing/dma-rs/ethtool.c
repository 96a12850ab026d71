// SPDX-License-Identifier: GPL-2.0
/*
 * Asks a network interface, and tells it, what ethtool would:
 *
 *     ethtool link INTERFACE
 *     ethtool rings INTERFACE [TX RX]
 *     ethtool coalesce INTERFACE [MICROSECONDS]
 *     ethtool offloads INTERFACE on|off
 *     ethtool statistics INTERFACE
 *
 * Answers are lines of a name and a number. Built with the kernel's nolibc, which is included by
 * the command line.
 */

#include <linux/ethtool.h>
#include <linux/if_ether.h>
#include <linux/socket.h>

#define PF_PACKET 17
#define SOCKET_RAW 3
#define IOCTL 0x8946

struct request {
	char name[16];
	void *data;
	char rest[16];
};

static int fd;
static struct request request;

static void fail(const char *what)
{
	perror(what);
	exit(1);
}

static void ask(void *data, const char *what)
{
	request.data = data;
	if (ioctl(fd, IOCTL, &request) < 0)
		fail(what);
}

static void show_link(void)
{
	struct ethtool_cmd settings = { .cmd = ETHTOOL_GSET };
	struct ethtool_value up = { .cmd = ETHTOOL_GLINK };

	ask(&up, "link");
	ask(&settings, "settings");
	printf("up %d\nspeed %d\nduplex %d\nautoneg %d\n", up.data,
	       settings.speed | settings.speed_hi << 16, settings.duplex,
	       settings.autoneg);
}

static void show_or_set_rings(int argc, char **argv)
{
	struct ethtool_ringparam rings = { .cmd = ETHTOOL_GRINGPARAM };

	ask(&rings, "rings");
	if (argc > 4) {
		rings.cmd = ETHTOOL_SRINGPARAM;
		rings.tx_pending = atoi(argv[3]);
		rings.rx_pending = atoi(argv[4]);
		ask(&rings, "set rings");
		return;
	}
	printf("tx %d\nrx %d\ntx_max %d\nrx_max %d\n", rings.tx_pending,
	       rings.rx_pending, rings.tx_max_pending, rings.rx_max_pending);
}

static void show_or_set_interval(int argc, char **argv)
{
	struct ethtool_coalesce coalesce = { .cmd = ETHTOOL_GCOALESCE };

	ask(&coalesce, "coalesce");
	if (argc > 3) {
		coalesce.cmd = ETHTOOL_SCOALESCE;
		coalesce.rx_coalesce_usecs = atoi(argv[3]);
		ask(&coalesce, "set coalesce");
		return;
	}
	printf("usecs %d\n", coalesce.rx_coalesce_usecs);
}

static void switch_offloads(const char *which)
{
	static const int commands[] = {
		ETHTOOL_STXCSUM, ETHTOOL_SSG, ETHTOOL_STSO, ETHTOOL_SRXCSUM,
	};
	int i, on = !strcmp(which, "on");

	for (i = 0; i < 4; i++) {
		struct ethtool_value value = { .cmd = commands[i], .data = on };

		ask(&value, "set offloads");
	}
}

static void show_statistics(void)
{
	/* Room for what follows each of these. */
	static __u64 info_room[8], names_room[512], stats_room[128];
	struct ethtool_sset_info *info = (void *)info_room;
	struct ethtool_gstrings *names = (void *)names_room;
	struct ethtool_stats *stats = (void *)stats_room;
	unsigned int i;

	info->cmd = ETHTOOL_GSSET_INFO;
	info->sset_mask = 1 << ETH_SS_STATS;
	ask(info, "count");
	if (!info->sset_mask || info->data[0] > 64)
		exit(1);

	names->cmd = ETHTOOL_GSTRINGS;
	names->string_set = ETH_SS_STATS;
	names->len = info->data[0];
	ask(names, "names");
	stats->cmd = ETHTOOL_GSTATS;
	stats->n_stats = info->data[0];
	ask(stats, "statistics");
	for (i = 0; i < stats->n_stats; i++)
		printf("%s %llu\n", (char *)names->data + i * ETH_GSTRING_LEN,
		       (unsigned long long)stats->data[i]);
}

int main(int argc, char **argv)
{
	if (argc < 3) {
		fprintf(stderr, "see ethtool.c\n");
		return 1;
	}

	fd = syscall(__NR_socket, PF_PACKET, SOCKET_RAW, 0);
	if (fd < 0)
		fail("socket");
	memcpy(request.name, argv[2],
	       strnlen(argv[2], sizeof(request.name) - 1));

	if (!strcmp(argv[1], "link"))
		show_link();
	else if (!strcmp(argv[1], "rings"))
		show_or_set_rings(argc, argv);
	else if (!strcmp(argv[1], "coalesce"))
		show_or_set_interval(argc, argv);
	else if (!strcmp(argv[1], "offloads") && argc > 3)
		switch_offloads(argv[3]);
	else if (!strcmp(argv[1], "statistics"))
		show_statistics();
	else
		return 1;
	return 0;
}
