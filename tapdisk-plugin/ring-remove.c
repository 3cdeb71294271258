/* SPDX-License-Identifier: BSD-3-Clause */
#include "ring-layout.h"
#include "ring.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sys/stat.h>
#include <unistd.h>

static int remove_one(const char *path, const char *suffix)
{
	char name[PATH_MAX];
	int ret = ring_path(name, sizeof(name), path, suffix);
	if (ret)
		return ret;
	return unlink(name) < 0 && errno != ENOENT ? -errno : 0;
}

/* The producer's lock is held all the while, and PATH goes last: a producer that comes meanwhile finds the ring
 * locked or gone, never one that is half there. */
int tw_ring_remove(const char *path)
{
	struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 0, .l_len = 1};
	struct stat ours, named;
	int fd = open(path, O_RDWR | O_CLOEXEC | O_NONBLOCK | O_NOFOLLOW);
	if (fd < 0)
		return -errno;
	int ret = 0;
	uint64_t magic = 0;
	if (pread(fd, &magic, sizeof(magic), 0) != sizeof(magic) || magic != RING_MAGIC)
		ret = -EEXIST;
	else if (fcntl(fd, F_OFD_SETLK, &lock) < 0)
		ret = errno == EAGAIN || errno == EACCES ? -EBUSY : -errno;
	else if (fstat(fd, &ours) < 0 || stat(path, &named) < 0 || named.st_ino != ours.st_ino ||
		 named.st_dev != ours.st_dev)
		ret = -EBUSY;
	if (ret == 0)
		ret = remove_one(path, ".bell");
	if (ret == 0)
		ret = remove_one(path, ".cursor");
	if (ret == 0)
		ret = remove_one(path, ".interest");
	if (ret == 0)
		ret = remove_one(path, "");
	close(fd);
	return ret;
}

int tw_ring_has_producer(const char *path)
{
	struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 0, .l_len = 1};
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOFOLLOW);
	int alive = fd >= 0 && fcntl(fd, F_OFD_GETLK, &lock) == 0 && lock.l_type != F_UNLCK;
	if (fd >= 0)
		close(fd);
	return alive;
}
