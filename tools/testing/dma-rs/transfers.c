// SPDX-License-Identifier: GPL-2.0
/*
 * transfers FILE COUNT LENGTH: writes that many bytes to a file, so often, and reads them as often.
 * Says for how long it was executed each time, in nanoseconds of its CPU time, which are known to
 * the microsecond, and how many bytes came back last that weren't written. It isn't executed while
 * it waits, so the handler of the interrupt that it waits for isn't its time.
 *
 * Built with the kernel's nolibc, which is included by the command line.
 */

#include <linux/resource.h>

#define LONGEST 4095

static unsigned char sent[LONGEST], received[LONGEST];

static void fail(const char *what)
{
	perror(what);
	exit(1);
}

static long long executed(void)
{
	struct rusage usage;

	if (__nolibc_syscall2(__NR_getrusage, RUSAGE_SELF, &usage))
		fail("getrusage");
	return 1000LL * (usage.ru_utime.tv_usec + usage.ru_stime.tv_usec +
			 1000000LL * (usage.ru_utime.tv_sec + usage.ru_stime.tv_sec));
}

static void from_start(int fd)
{
	if (lseek(fd, 0, SEEK_SET))
		fail("lseek");
}

int main(int argc, char **argv)
{
	long long start, writes, reads;
	int fd, count, len, i, wrong = 0;

	if (argc != 4) {
		fprintf(stderr, "usage: transfers FILE COUNT LENGTH\n");
		return 2;
	}

	count = atoi(argv[2]);
	len = atoi(argv[3]);
	if (count < 1 || len < 1 || len > LONGEST) {
		fprintf(stderr, "COUNT is at least 1, LENGTH 1 to %d\n", LONGEST);
		return 2;
	}

	fd = open(argv[1], O_RDWR);
	if (fd < 0)
		fail(argv[1]);

	for (i = 0; i < len; i++)
		sent[i] = 1 + i * 7;

	start = executed();
	for (i = 0; i < count; i++) {
		from_start(fd);
		if (write(fd, sent, len) != len)
			fail("write");
	}
	writes = executed() - start;

	start = executed();
	for (i = 0; i < count; i++) {
		from_start(fd);
		if (read(fd, received, len) != len)
			fail("read");
	}
	reads = executed() - start;

	for (i = 0; i < len; i++)
		wrong += received[i] != sent[i];

	printf("%lld %lld %d\n", writes, reads, wrong);
	return 0;
}
