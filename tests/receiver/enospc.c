/* SPDX-License-Identifier: BSD-3-Clause */
/* An LD_PRELOAD library: pwrite() fails for lack of space as long as the file $TAPWIRE_ENOSPC exists. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

ssize_t pwrite64(int fd, const void *data, size_t len, off64_t offset)
{
	static ssize_t (*real)(int, const void *, size_t, off64_t);
	const char *file = getenv("TAPWIRE_ENOSPC");
	if (file && access(file, F_OK) == 0) {
		errno = ENOSPC;
		return -1;
	}
	if (!real)
		real = (ssize_t(*)(int, const void *, size_t, off64_t))dlsym(RTLD_NEXT, "pwrite64");
	return real(fd, data, len, offset);
}
