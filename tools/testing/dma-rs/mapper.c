// SPDX-License-Identifier: GPL-2.0
/*
 * mapper FILE UNBIND DEVICE: maps the memory of the sample rust_dma_mmap, whose
 * file that is, works with it, and has the device unbound by writing its name
 * to UNBIND. Says what was wrong, if anything, and fails then.
 *
 * Built with the kernel's nolibc, which is included by the command line.
 */

#include <linux/ioctl.h>

#define PAGE 4096UL
#define MOST 3000
#define ADD _IO('d', 1)
#define REVOKE _IO('d', 2)

/* As in samples/rust/rust_dma_mmap.rs. */
struct sheet {
	unsigned long long count;
	unsigned int numbers[MOST];
	unsigned long long sum;
};

#define LENGTH ((sizeof(struct sheet) + PAGE - 1) / PAGE * PAGE)

static void wrong(const char *what)
{
	printf("%s (errno %d)\n", what, errno);
	exit(1);
}

static void must(int condition, const char *what)
{
	if (!condition)
		wrong(what);
}

static void *map(int fd, unsigned long len, unsigned long offset)
{
	return mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED, fd, offset);
}

static void must_not_map(int fd, unsigned long len, int prot, int flags,
			 unsigned long offset, int error, const char *what)
{
	must(mmap(NULL, len, prot, flags, fd, offset) == MAP_FAILED &&
	     errno == error, what);
}

/* Reads or writes a byte, whatever the compiler thinks of that. */
static void touch(unsigned char *place, int writes)
{
	unsigned int byte = 1;

	if (writes)
		*place = byte;
	else
		byte = *place;
	asm volatile("" : : "r"(byte) : "memory");
}

/* Whether a process is killed by SIGBUS that reads or writes here. */
static int kills(unsigned char *place, int writes)
{
	int status = 0, pid = fork();

	if (!pid) {
		touch(place, writes);
		exit(0);
	}
	must(pid > 0 && waitpid(pid, &status, 0) == pid, "a child is lost");
	return WIFSIGNALED(status) && WTERMSIG(status) == SIGBUS;
}

/* Whether nobody has the memory any more, by these pages. */
static void must_be_gone(void *mapped, int pipe, const char *what)
{
	unsigned char *place = mapped;
	unsigned long page;

	for (page = 0; page < LENGTH; page += PAGE) {
		must(kills(place + page, 0) && kills(place + page, 1), what);
		must(write(pipe, place + page, 1) < 0 && errno == EFAULT, what);
	}
}

/* Writes to each page, again and again, until it is killed. */
static int busy(void *mapped)
{
	unsigned long i;
	int pid = fork();

	if (!pid) {
		for (i = 0;; i += PAGE)
			touch((unsigned char *)mapped + i % LENGTH, 1);
	}
	must(pid > 0, "no child");
	return pid;
}

static void work(struct sheet *sheet, int fd)
{
	unsigned long long sum = 0;
	int i, status = 0, pid;

	for (i = 0; i < MOST; i++) {
		sheet->numbers[i] = 0xfffff000 + i;
		sum += sheet->numbers[i];
	}
	sheet->count = MOST;
	must(!ioctl(fd, ADD, 0), "adding failed");
	must(sheet->sum == sum, "the sum is wrong");

	/* A child has the same memory. */
	pid = fork();
	if (!pid) {
		sheet->numbers[0]++;
		exit(ioctl(fd, ADD, 0) || sheet->sum != sum + 1);
	}
	must(pid > 0 && waitpid(pid, &status, 0) == pid && !status,
	     "a child adds wrong");
	must(sheet->sum == sum + 1, "what a child did is not there");

	/* Nobody believes what is in the sheet. */
	sheet->count = MOST + 1;
	must(ioctl(fd, ADD, 0) && errno == EIO, "too many were added");
	sheet->count = -1;
	must(ioctl(fd, ADD, 0) && errno == EIO, "far too many were added");
}

static void refusals(int fd, const char *file)
{
	int all = PROT_READ | PROT_WRITE, other = open(file, O_RDONLY);
	unsigned char *last, *part;

	must(other >= 0, "cannot be opened twice");
	must_not_map(fd, LENGTH, all, MAP_PRIVATE, 0, EINVAL, "a private mapping");
	must_not_map(fd, LENGTH + PAGE, all, MAP_SHARED, 0, ENXIO, "more than there is");
	must_not_map(fd, PAGE, all, MAP_SHARED, LENGTH, ENXIO, "behind the end");
	must_not_map(fd, LENGTH, all, MAP_SHARED, PAGE, ENXIO, "over the end");
	must_not_map(fd, PAGE, PROT_READ | PROT_EXEC, MAP_SHARED, 0, EINVAL, "code");
	must_not_map(other, PAGE, all, MAP_SHARED, 0, EACCES, "a file that is read");

	/* The last page ends with zeros; nothing makes it longer. */
	last = map(fd, PAGE, LENGTH - PAGE);
	must(last != MAP_FAILED, "the last page");
	must(!last[PAGE - 1], "something is behind the sheet");
	must(mremap(last, PAGE, 2 * PAGE, MREMAP_MAYMOVE, NULL) == MAP_FAILED,
	     "it grows");
	must(!munmap(last, PAGE), "the last page stays");

	/* Half of an area stays when the other half goes. */
	part = map(fd, 2 * PAGE, 0);
	must(part != MAP_FAILED, "two pages");
	part[PAGE] = 7;
	must(!munmap(part, PAGE), "the first page stays");
	must(part[PAGE] == 7, "the second page is gone");
	must(!munmap(part + PAGE, PAGE), "the second page stays");
	close(other);
}

int main(int argc, char **argv)
{
	struct sheet *sheet, *second;
	int fd, other, unbind, status = 0, child, pipes[2];

	if (argc != 4) {
		fprintf(stderr, "usage: mapper FILE UNBIND DEVICE\n");
		return 2;
	}

	must(!pipe(pipes), "no pipe");
	fd = open(argv[1], O_RDWR);
	other = open(argv[1], O_RDWR);
	must(fd >= 0 && other >= 0, "no such file");

	sheet = map(fd, LENGTH, 0);
	second = map(other, LENGTH, 0);
	must(sheet != MAP_FAILED && second != MAP_FAILED, "cannot be mapped");

	work(sheet, fd);
	refusals(fd, argv[1]);
	must(second->numbers[1] == sheet->numbers[1], "two mappings differ");

	/* The mapping needs no open file. */
	close(fd);
	sheet->numbers[2] = 42;
	must(second->numbers[2] == 42, "a mapping ends with its file");

	/* The device is unbound while somebody writes, and waits for nobody. */
	child = busy(sheet);
	unbind = open(argv[2], O_WRONLY);
	must(unbind >= 0, "no way to unbind");
	if (!strcmp(argv[3], "-"))
		must(!ioctl(other, REVOKE, 0), "revoking failed");
	else
		must(write(unbind, argv[3], strlen(argv[3])) > 0, "cannot be unbound");

	must(waitpid(child, &status, 0) == child && WIFSIGNALED(status) &&
	     WTERMSIG(status) == SIGBUS, "a writer goes on");
	must_be_gone(sheet, pipes[1], "the memory is still there");
	must_be_gone(second, pipes[1], "the memory is still there, by another file");
	must_not_map(other, LENGTH, PROT_READ, MAP_SHARED, 0, ENODEV, "mapped anew");
	must(!munmap(sheet, LENGTH) && !munmap(second, LENGTH), "cannot be unmapped");

	printf("right\n");
	return 0;
}
