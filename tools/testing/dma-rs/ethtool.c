// SPDX-License-Identifier: GPL-2.0
/*
 * Asks a network interface, and tells it, what ethtool would:
 *
 *     ethtool link INTERFACE [offer MODES | force SPEED DUPLEX]
 *     ethtool rings INTERFACE [TX RX [NTH]]
 *     ethtool coalesce INTERFACE [MICROSECONDS]
 *     ethtool offloads INTERFACE on|off
 *     ethtool statistics INTERFACE
 *     ethtool messages INTERFACE [MASK]
 *     ethtool test INTERFACE [offline]
 *
 * Answers are lines of a name and a number. With NTH, that allocation fails; what is left of the
 * number is said. Built with the kernel's nolibc, which is included by the command line.
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

static int fd, nth_fd;
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

/* Has an allocation of this process fail, counted from 1. */
static void let_fail(const char *nth)
{
	nth_fd = open("/proc/self/fail-nth", O_RDWR);
	if (nth_fd < 0 || write(nth_fd, nth, strlen(nth)) < 0)
		fail("fail-nth");
}

/* Returns how many more it would have taken; 0 if it has failed. */
static int stop_failing(void)
{
	char left[16] = "";

	if (read(nth_fd, left, sizeof(left) - 1) < 0 || write(nth_fd, "0", 1) < 0)
		fail("fail-nth");
	return atoi(left);
}

static void show_or_set_link(int argc, char **argv)
{
	struct ethtool_cmd settings = { .cmd = ETHTOOL_GSET };
	struct ethtool_value up = { .cmd = ETHTOOL_GLINK };

	ask(&up, "link");
	ask(&settings, "settings");
	if (argc <= 4) {
		printf("up %d\nspeed %d\nduplex %d\nautoneg %d\nsupported 0x%x\nadvertising 0x%x\n",
		       up.data, settings.speed | settings.speed_hi << 16,
		       settings.duplex, settings.autoneg, settings.supported,
		       settings.advertising);
		return;
	}

	settings.cmd = ETHTOOL_SSET;
	settings.autoneg = argc <= 5;
	if (settings.autoneg) {
		settings.advertising = strtoul(argv[4], NULL, 0);
	} else {
		settings.speed_hi = 0;
		settings.speed = atoi(argv[4]);
		settings.duplex = atoi(argv[5]);
	}
	ask(&settings, "set link");
}

static void show_or_set_rings(int argc, char **argv)
{
	struct ethtool_ringparam rings = { .cmd = ETHTOOL_GRINGPARAM };
	int err;

	ask(&rings, "rings");
	if (argc <= 4) {
		printf("tx %d\nrx %d\ntx_max %d\nrx_max %d\n",
		       rings.tx_pending, rings.rx_pending, rings.tx_max_pending,
		       rings.rx_max_pending);
		return;
	}

	rings.cmd = ETHTOOL_SRINGPARAM;
	rings.tx_pending = atoi(argv[3]);
	rings.rx_pending = atoi(argv[4]);
	if (argc <= 5) {
		ask(&rings, "set rings");
		return;
	}

	/* Nothing between, which may allocate something, too. */
	request.data = &rings;
	let_fail(argv[5]);
	err = ioctl(fd, IOCTL, &request) < 0;
	printf("left %d\n", stop_failing());
	if (err)
		exit(1);
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

/* Returns the names of a set, one in each ETH_GSTRING_LEN bytes. */
static const char *names_of(unsigned int set, unsigned int *count)
{
	/* Room for what follows each of these. */
	static __u64 info_room[8], names_room[512];
	struct ethtool_sset_info *info = (void *)info_room;
	struct ethtool_gstrings *names = (void *)names_room;

	info->cmd = ETHTOOL_GSSET_INFO;
	info->sset_mask = 1 << set;
	ask(info, "count");
	if (!info->sset_mask || info->data[0] > 64)
		exit(1);

	*count = info->data[0];
	names->cmd = ETHTOOL_GSTRINGS;
	names->string_set = set;
	names->len = *count;
	ask(names, "names");
	return (char *)names->data;
}

static void show_numbers(const char *names, const __u64 *numbers, unsigned int count)
{
	unsigned int i;

	for (i = 0; i < count; i++)
		printf("%s %llu\n", names + i * ETH_GSTRING_LEN, (unsigned long long)numbers[i]);
}

static void show_statistics(void)
{
	static __u64 room[128];
	struct ethtool_stats *stats = (void *)room;
	const char *names = names_of(ETH_SS_STATS, &stats->n_stats);

	stats->cmd = ETHTOOL_GSTATS;
	ask(stats, "statistics");
	show_numbers(names, (__u64 *)stats->data, stats->n_stats);
}

static void show_or_set_messages(int argc, char **argv)
{
	struct ethtool_value value = { .cmd = ETHTOOL_GMSGLVL };

	if (argc > 3) {
		value.cmd = ETHTOOL_SMSGLVL;
		value.data = atoi(argv[3]);
	}
	ask(&value, "messages");
	printf("mask %d\n", value.data);
}

static void show_test(int argc)
{
	static __u64 room[128];
	struct ethtool_test *test = (void *)room;
	const char *names = names_of(ETH_SS_TEST, &test->len);

	test->cmd = ETHTOOL_TEST;
	test->flags = argc > 3 ? ETH_TEST_FL_OFFLINE : 0;
	ask(test, "test");
	show_numbers(names, (__u64 *)test->data, test->len);
	printf("failed %d\n", !!(test->flags & ETH_TEST_FL_FAILED));
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
		show_or_set_link(argc, argv);
	else if (!strcmp(argv[1], "rings"))
		show_or_set_rings(argc, argv);
	else if (!strcmp(argv[1], "coalesce"))
		show_or_set_interval(argc, argv);
	else if (!strcmp(argv[1], "offloads") && argc > 3)
		switch_offloads(argv[3]);
	else if (!strcmp(argv[1], "statistics"))
		show_statistics();
	else if (!strcmp(argv[1], "messages"))
		show_or_set_messages(argc, argv);
	else if (!strcmp(argv[1], "test"))
		show_test(argc);
	else
		return 1;
	return 0;
}
