/* SPDX-License-Identifier: BSD-3-Clause */
#include "supervise/allocated.h"
#include "base/scope.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fiemap.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#define EXTENTS 128u
#define ZFS_SUPER_MAGIC 0x2fc12fc1l
#define BCACHEFS_SUPER_MAGIC 0xca451a4el

static struct tw_error *may_run_out(const char *image, const char *why)
{
	return tw_error_create(TW_UNSUPPORTED,
		"%s: %s: writing to it can run out of space, and tapdisk would then go on with the "
		"mirror in place of the image; allocate it in full (fallocate -l)",
		image, why);
}

static bool writes_elsewhere(int fd)
{
	struct statfs fs;
	if (fstatfs(fd, &fs) < 0)
		return false;
	const long type = (long)fs.f_type;
	return type == BTRFS_SUPER_MAGIC || type == ZFS_SUPER_MAGIC || type == BCACHEFS_SUPER_MAGIC;
}

/* The extents from *at on must follow one another. *at: where they end. */
static struct tw_error *check_extents(
	const char *image, const struct fiemap *map, uint64_t size, uint64_t *at)
{
	if (map->fm_mapped_extents == 0)
		return may_run_out(image, "it has holes");
	for (uint32_t i = 0; i < map->fm_mapped_extents; i++) {
		const struct fiemap_extent *extent = &map->fm_extents[i];
		if (extent->fe_logical > *at)
			return may_run_out(image, "it has holes");
		if (extent->fe_flags & FIEMAP_EXTENT_SHARED)
			return may_run_out(image, "it shares blocks with another file");
		*at = extent->fe_logical + extent->fe_length;
		if (extent->fe_flags & FIEMAP_EXTENT_LAST)
			break;
	}
	const bool last = map->fm_extents[map->fm_mapped_extents - 1].fe_flags &
			  FIEMAP_EXTENT_LAST;
	return last && *at < size ? may_run_out(image, "it has holes") : NULL;
}

static struct tw_error *check_file(const char *image, int fd, const struct stat *st)
{
	const uint64_t size = (uint64_t)st->st_size;
	union {
		struct fiemap head;
		char bytes[sizeof(struct fiemap) + EXTENTS * sizeof(struct fiemap_extent)];
	} room = { .bytes = "" };
	struct fiemap *map = &room.head;
	if (writes_elsewhere(fd))
		return may_run_out(image, "its file system does not write in place");
	for (uint64_t at = 0; at < size;) {
		map->fm_start = at;
		map->fm_length = size - at;
		map->fm_extent_count = EXTENTS;
		map->fm_mapped_extents = 0;
		if (ioctl(fd, FS_IOC_FIEMAP, map) == 0) {
			TW_TRY(check_extents(image, map, size, &at));
			continue;
		}
		/* A file system without this call (tmpfs, NFS) has none that are shared, either. */
		if (errno != EOPNOTSUPP && errno != ENOTTY)
			return tw_error_errno(errno, "%s", image);
		return (uint64_t)st->st_blocks * 512 < size ? may_run_out(image, "it has holes")
							    : NULL;
	}
	return NULL;
}

struct tw_error *tw_image_check_allocated(const char *image)
{
	struct stat st;
	TW_AUTO_CLOSE int fd = open(image, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &st) < 0)
		return tw_error_errno(errno, "%s", image);
	if (S_ISBLK(st.st_mode))
		return NULL;
	if (!S_ISREG(st.st_mode))
		return tw_error_create(
			TW_USAGE, "%s: neither a regular file nor a block device", image);
	return check_file(image, fd, &st);
}
