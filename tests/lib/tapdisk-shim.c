/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * To be preloaded into a tapdisk that is tested: what this machine has not. A container's root may not
 * lift RLIMIT_MEMLOCK, and tapdisk ends when it cannot; blktap 3 has a device of its kernel module for
 * each disk, beside the NBD export: here that is there, and nobody ever asks anything of it.
 */
#include <fcntl.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#define DEVICES "/dev/xen/blktap-2/blktap"
#define MAJOR 254

#define MAX_FD 1024

static int minors[MAX_FD]; /* by descriptor, plus one */

static int minor_of(int fd)
{
	return fd >= 0 && fd < MAX_FD ? minors[fd] - 1 : -1;
}

int setrlimit(__rlimit_resource_t resource, const struct rlimit *limit)
{
	const long ret = syscall(SYS_prlimit64, 0, (int)resource, limit, NULL);
	return resource == RLIMIT_MEMLOCK ? 0 : (int)ret;
}

int open(const char *path, int flags, ...)
{
	va_list args;
	va_start(args, flags);
	const mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(args, mode_t) : 0;
	va_end(args);
	const bool device = strncmp(path, DEVICES, sizeof(DEVICES) - 1) == 0;
	const int fd = device ? eventfd(0, EFD_CLOEXEC)
			      : (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode);
	if (device && fd >= 0 && fd < MAX_FD)
		minors[fd] = atoi(path + sizeof(DEVICES) - 1) + 1;
	return fd;
}

int close(int fd)
{
	if (minor_of(fd) >= 0)
		minors[fd] = 0;
	return (int)syscall(SYS_close, fd);
}

int fstat(int fd, struct stat *st)
{
	const int ret = fstatat(fd, "", st, AT_EMPTY_PATH);
	if (ret == 0 && minor_of(fd) >= 0)
		st->st_rdev = makedev(MAJOR, (unsigned)minor_of(fd));
	return ret;
}

void *mmap(void *addr, size_t size, int prot, int flags, int fd, off_t offset)
{
	if (minor_of(fd) >= 0)
		return (void *)syscall(SYS_mmap, addr, size, prot, flags | MAP_ANONYMOUS, -1, 0l);
	return (void *)syscall(SYS_mmap, addr, size, prot, flags, fd, offset);
}

int ioctl(int fd, unsigned long request, ...)
{
	va_list args;
	va_start(args, request);
	void *arg = va_arg(args, void *);
	va_end(args);
	return minor_of(fd) >= 0 ? 0 : (int)syscall(SYS_ioctl, fd, request, arg);
}
