/* SPDX-License-Identifier: BSD-3-Clause */
/* The ring's files: making them, finding them again, mapping them. */
#include "ring-producer.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

/* --- both sides --- */

int ring_path(char *out, size_t size, const char *path, const char *suffix)
{
	int n = snprintf(out, size, "%s%s", path, suffix);
	return n < 0 || (size_t)n >= size ? -ENAMETOOLONG : 0;
}

/* Address space for a mapping that is to begin at a multiple of align. NULL with errno. */
static char *reserve(size_t bytes, size_t align)
{
	char *all = mmap(NULL, bytes + align, PROT_NONE,
		MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (all == MAP_FAILED)
		return NULL;
	const size_t before = (align - (uintptr_t)all % align) % align;
	if (before)
		munmap(all, before);
	munmap(all + before + bytes, align - before);
	return all + before;
}

char *ring_map(int fd, const struct ring_geometry *g, uint64_t data_bytes, int prot)
{
	const size_t bytes = ring_map_bytes(g, data_bytes);
	/* One reservation, so that nothing else can come to lie between the parts. */
	char *base = reserve(bytes, RING_HUGE);
	if (!base)
		return NULL;
	if (mmap(base, g->total_bytes, prot, MAP_SHARED | MAP_FIXED, fd, 0) == MAP_FAILED ||
		mmap(base + g->total_bytes, data_bytes, prot, MAP_SHARED | MAP_FIXED, fd,
			(off_t)g->data_offset) == MAP_FAILED) {
		const int saved = errno;
		munmap(base, bytes);
		errno = saved;
		return NULL;
	}
	/* For a tmpfs that is mounted with huge=advise; another one takes no notice. */
	(void)madvise(base + g->data_offset, 2 * data_bytes, MADV_HUGEPAGE);
	return base;
}

int ring_check_header(const struct ring_header *header, uint64_t file_bytes)
{
	if (header->magic != RING_MAGIC || header->version < 1 || header->version > RING_VERSION)
		return -EBADMSG;
	if (header->header_bytes != sizeof(*header))
		return -EBADMSG;
	const uint64_t data = header->data_bytes;
	if (data < TW_RING_MIN_BYTES || data > RING_MAX_DATA_BYTES || (data & (data - 1)))
		return -EBADMSG;
	if (header->disk_bytes > RING_MAX_DISK_BYTES)
		return -EBADMSG;
	const struct ring_geometry g = ring_geometry(header->version, header->disk_bytes, data);
	return g.total_bytes == file_bytes ? 0 : -EBADMSG;
}

void ring_stats(const struct ring_producer *shared, struct tw_ring_stats *out)
{
	uint64_t s[STAT_COUNT];
	for (int i = 0; i < STAT_COUNT; i++)
		s[i] = atomic_load_explicit(&shared->stats[i], memory_order_relaxed);
	*out = (struct tw_ring_stats){
		.records = s[STAT_RECORDS],
		.payload_bytes = s[STAT_PAYLOAD],
		.gaps = s[STAT_GAPS],
		.missed = s[STAT_MISSED],
		.missed_bytes = s[STAT_MISSED_BYTES],
		.wakeups = s[STAT_WAKEUPS],
		.spared_bytes = s[STAT_SPARED],
	};
}

/* --- the producer --- */

/* Not by process id: the lock goes when the last process that holds the file goes, however it dies,
 * and a server that forks itself into the background keeps it. */
static int lock_producer(int fd)
{
	struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 0, .l_len = 1};
	if (fcntl(fd, F_OFD_SETLK, &lock) == 0)
		return 0;
	return errno == EAGAIN || errno == EACCES ? -EBUSY : -errno;
}

static int map_producer(struct tw_ring *ring, const struct ring_header *header)
{
	const uint64_t data_bytes = header->data_bytes;
	ring->geometry = ring_geometry(header->version, header->disk_bytes, data_bytes);
	ring->data_bytes = data_bytes;
	ring->base = ring_map(ring->fd, &ring->geometry, data_bytes, PROT_READ | PROT_WRITE);
	if (!ring->base)
		return -errno;
	ring->data = ring->base + ring->geometry.data_offset;
	/* Now, and not by a page fault in the middle of a guest's request; older kernels cannot. */
	(void)madvise(ring->data, 2 * data_bytes, MADV_POPULATE_WRITE);
	ring->shared = (struct ring_producer *)(ring->base + RING_PAGE);
	ring->intents = (struct ring_intent *)(ring->base + 2 * RING_PAGE);
	return 0;
}

static void drop_interest(struct tw_ring *ring)
{
	if (ring->interest)
		munmap((void *)ring->interest, ring_interest_bytes(&ring->geometry));
	ring->interest = NULL;
}

void ring_close(struct tw_ring *ring)
{
	if (ring->base)
		munmap(ring->base, ring_map_bytes(&ring->geometry, ring->data_bytes));
	if (ring->cursor)
		munmap((void *)ring->cursor, RING_PAGE);
	drop_interest(ring);
	if (ring->bell >= 0)
		close(ring->bell);
	if (ring->fd >= 0)
		close(ring->fd);
	ring->base = ring->data = NULL;
	ring->shared = NULL;
	ring->cursor = NULL;
	ring->bell = ring->fd = -1;
}

static int open_bell(struct tw_ring *ring, const char *path)
{
	char bell[PATH_MAX];
	struct stat st;
	int ret = ring_path(bell, sizeof(bell), path, ".bell");
	if (ret)
		return ret;
	if (mkfifo(bell, 0600) < 0 && errno != EEXIST)
		return -errno;
	/* Read and write: opening does not wait for a peer, and a write never raises SIGPIPE. */
	ring->bell = open(bell, O_RDWR | O_NONBLOCK | O_CLOEXEC | O_NOFOLLOW);
	if (ring->bell < 0 || fstat(ring->bell, &st) < 0)
		return -errno;
	return S_ISFIFO(st.st_mode) ? 0 : -EEXIST;
}

/* Maps the cursor page that fd is. The producer only ever reads it. */
static int map_cursor(struct tw_ring *ring, int fd)
{
	struct stat st;
	if (fstat(fd, &st) < 0)
		return -errno;
	if (!S_ISREG(st.st_mode) || st.st_size != RING_PAGE)
		return -EBADMSG;
	void *page = mmap(NULL, RING_PAGE, PROT_READ, MAP_SHARED, fd, 0);
	if (page == MAP_FAILED)
		return -errno;
	ring->cursor = page;
	return 0;
}

/* 0 when the ring in ring->fd, whose lock we hold, can be gone on with; -EBADMSG when not. */
static int resume(struct tw_ring *ring, const char *path, uint64_t disk_bytes, uint64_t data_bytes)
{
	struct ring_header header;
	struct stat st;
	char cursor[PATH_MAX];
	if (pread(ring->fd, &header, sizeof(header), 0) != sizeof(header) ||
		fstat(ring->fd, &st) < 0)
		return -EBADMSG;
	if (ring_check_header(&header, (uint64_t)st.st_size) != 0)
		return -EBADMSG;
	if (header.disk_bytes != disk_bytes || header.data_bytes != data_bytes)
		return -EBADMSG;
	int ret = ring_path(cursor, sizeof(cursor), path, ".cursor");
	if (ret)
		return ret;
	int fd = open(cursor, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0)
		return -EBADMSG;
	ret = map_cursor(ring, fd);
	close(fd);
	if (ret)
		return -EBADMSG;
	if (memcmp(ring->cursor->id, header.id, sizeof(header.id)) != 0)
		return -EBADMSG;
	ret = map_producer(ring, &header);
	if (ret)
		return ret;
	const uint64_t head = atomic_load(&ring->shared->head);
	const uint64_t seen = atomic_load(&ring->shared->tail_seen);
	const uint64_t last = atomic_load(&ring->shared->last_pos);
	if (head % RING_ALIGN || seen > head || head - seen > data_bytes)
		return -EBADMSG;
	if (last != RING_NO_RECORD &&
		(last % RING_ALIGN || last > head || head - last > data_bytes))
		return -EBADMSG;
	return 0;
}

/* Makes a file that has no name but a temporary one, of the given size. */
static int make_sparse(char *tmp, size_t size, const char *path, const char *suffix, uint64_t bytes)
{
	char full[PATH_MAX];
	int ret = ring_path(full, sizeof(full), path, suffix);
	if (ret == 0)
		ret = ring_path(tmp, size, full, ".XXXXXX");
	if (ret)
		return ret;
	int fd = mkostemp(tmp, O_CLOEXEC); /* O_CREAT | O_EXCL, mode 0600 */
	if (fd < 0)
		return -errno;
	if (ftruncate(fd, (off_t)bytes) < 0) {
		ret = -errno;
		close(fd);
		unlink(tmp);
		return ret;
	}
	return fd;
}

/* The same, all of it allocated: a write to a hole on a full tmpfs would kill the guest's backend
 * with SIGBUS. */
static int make_file(char *tmp, size_t size, const char *path, const char *suffix, uint64_t bytes)
{
	int fd = make_sparse(tmp, size, path, suffix, bytes);
	if (fd < 0)
		return fd;
	int ret = -posix_fallocate(fd, 0, (off_t)bytes);
	if (ret) {
		close(fd);
		unlink(tmp);
		return ret;
	}
	return fd;
}

/* Gives both files their names: the ring first, as only one of two racing producers can win it. */
static int put_in_place(
	const char *path, bool replace, const char *ring_tmp, const char *cursor_tmp)
{
	char cursor[PATH_MAX];
	int ret = ring_path(cursor, sizeof(cursor), path, ".cursor");
	if (ret)
		return ret;
	/* Until the new cursor page is there, a consumer finds none, not a stale one. */
	if (replace)
		(void)unlink(cursor);
	if (renameat2(AT_FDCWD, ring_tmp, AT_FDCWD, path, replace ? 0 : RENAME_NOREPLACE) < 0)
		return errno == EEXIST ? -EBUSY : -errno;
	return rename(cursor_tmp, cursor) < 0 ? -errno : 0;
}

static int init_files(struct tw_ring *ring, int cursor_fd, uint64_t disk_bytes, uint64_t data_bytes)
{
	struct ring_header header = {
		.magic = RING_MAGIC,
		.version = RING_VERSION,
		.header_bytes = sizeof(header),
		.disk_bytes = disk_bytes,
		.data_bytes = data_bytes,
	};
	if (getrandom(header.id, sizeof(header.id), 0) != sizeof(header.id))
		return -EIO;
	int ret = lock_producer(ring->fd);
	if (ret == 0)
		ret = map_producer(ring, &header);
	/* Only now: what was allocated before it is mapped is no huge page. */
	if (ret == 0)
		ret = -posix_fallocate(ring->fd, 0, (off_t)ring->geometry.total_bytes);
	if (ret == 0)
		ret = map_cursor(ring, cursor_fd);
	if (ret)
		return ret;
	memcpy(ring->base, &header, sizeof(header));
	atomic_store(&ring->shared->last_pos, RING_NO_RECORD);
	if (pwrite(cursor_fd, header.id, sizeof(header.id), 0) != sizeof(header.id))
		return -EIO;
	return 0;
}

static int make_ring(struct tw_ring *ring, const char *path, bool replace, uint64_t disk_bytes,
	uint64_t data_bytes)
{
	char ring_tmp[PATH_MAX], cursor_tmp[PATH_MAX];
	const struct ring_geometry g = ring_geometry(RING_VERSION, disk_bytes, data_bytes);
	int fd = make_sparse(ring_tmp, sizeof(ring_tmp), path, "", g.total_bytes);
	if (fd < 0)
		return fd;
	ring->fd = fd;
	int cursor_fd = make_file(cursor_tmp, sizeof(cursor_tmp), path, ".cursor", RING_PAGE);
	int ret = cursor_fd < 0 ? cursor_fd : init_files(ring, cursor_fd, disk_bytes, data_bytes);
	if (ret == 0)
		ret = put_in_place(path, replace, ring_tmp, cursor_tmp);
	if (ret) {
		unlink(ring_tmp);
		if (cursor_fd >= 0)
			unlink(cursor_tmp);
	}
	if (cursor_fd >= 0)
		close(cursor_fd);
	return ret;
}

/* Maps a file as the ring's interest map. -EBADMSG: it is another ring's, or none. */
static int map_interest(struct tw_ring *ring, int fd, const uint8_t id[16])
{
	const uint64_t bytes = ring_interest_bytes(&ring->geometry);
	struct stat st;
	if (fstat(fd, &st) < 0)
		return -errno;
	if (!S_ISREG(st.st_mode) || (uint64_t)st.st_size != bytes)
		return -EBADMSG;
	void *map = mmap(NULL, bytes, PROT_READ, MAP_SHARED, fd, 0);
	if (map == MAP_FAILED)
		return -errno;
	ring->interest = map;
	return memcmp(ring->interest->id, id, 16) == 0 ? 0 : -EBADMSG;
}

static int make_interest(struct tw_ring *ring, const char *path, const char *name)
{
	const struct ring_header *header = (const struct ring_header *)ring->base;
	char tmp[PATH_MAX];
	int fd = make_file(
		tmp, sizeof(tmp), path, ".interest", ring_interest_bytes(&ring->geometry));
	if (fd < 0)
		return fd;
	int ret = pwrite(fd, header->id, sizeof(header->id), 0) == sizeof(header->id) ? 0 : -EIO;
	if (ret == 0)
		ret = map_interest(ring, fd, header->id);
	if (ret == 0 && rename(tmp, name) < 0)
		ret = -errno;
	close(fd);
	if (ret)
		unlink(tmp);
	return ret;
}

/* Finds the interest map, or makes it. Without one, everything is captured: that is no error. */
static void open_interest(struct tw_ring *ring, const char *path)
{
	const struct ring_header *header = (const struct ring_header *)ring->base;
	char name[PATH_MAX];
	int ret = ring_path(name, sizeof(name), path, ".interest");
	if (ret)
		return;
	int fd = open(name, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOFOLLOW);
	if (fd >= 0) {
		ret = map_interest(ring, fd, header->id);
		close(fd);
		if (ret == 0)
			return;
	}
	drop_interest(ring);
	if (make_interest(ring, path, name) != 0)
		drop_interest(ring);
}

/* Only what says that it is a ring is ever replaced: the path may be a typo for an image. */
static int check_replaceable(int fd)
{
	uint64_t magic = 0;
	ssize_t n = pread(fd, &magic, sizeof(magic), 0);
	if (n < 0)
		return -errno;
	return n == sizeof(magic) && magic == RING_MAGIC ? 0 : -EEXIST;
}

int tw_ring_vacant(const char *path)
{
	struct stat st;
	int fd = open(path, O_RDWR | O_CLOEXEC | O_NONBLOCK | O_NOFOLLOW);
	if (fd < 0)
		return errno == ENOENT ? 0 : -errno;
	int ret = fstat(fd, &st) < 0 ? -errno : 0;
	if (ret == 0)
		ret = S_ISREG(st.st_mode) ? check_replaceable(fd) : -EEXIST;
	if (ret == 0)
		ret = lock_producer(fd);
	close(fd);
	return ret;
}

static int open_existing(
	struct tw_ring *ring, const char *path, uint64_t disk_bytes, uint64_t data_bytes)
{
	struct stat ours, named;
	ring->fd = open(path, O_RDWR | O_CLOEXEC | O_NONBLOCK | O_NOFOLLOW);
	if (ring->fd < 0)
		return -errno;
	if (fstat(ring->fd, &ours) < 0)
		return -errno;
	if (!S_ISREG(ours.st_mode))
		return -EEXIST;
	int ret = check_replaceable(ring->fd);
	if (ret == 0)
		ret = lock_producer(ring->fd);
	if (ret)
		return ret;
	/* Replaced by another producer between our open and our lock? Then that one lives. */
	if (stat(path, &named) < 0 || named.st_ino != ours.st_ino || named.st_dev != ours.st_dev)
		return -EBUSY;
	ret = resume(ring, path, disk_bytes, data_bytes);
	if (ret != -EBADMSG)
		return ret;
	/* Held until the new file is in place, so that nobody else replaces it too. */
	int old = ring->fd;
	ring->fd = -1;
	int bell = ring->bell;
	ring->bell = -1;
	ring_close(ring);
	ring->bell = bell;
	ret = make_ring(ring, path, true, disk_bytes, data_bytes);
	close(old);
	return ret;
}

static uint64_t round_up(uint64_t bytes)
{
	uint64_t power = TW_RING_MIN_BYTES;
	while (power < bytes)
		power *= 2;
	return power;
}

int tw_ring_create(const char *path, uint64_t disk_bytes, uint64_t data_bytes, struct tw_ring **out)
{
	if (data_bytes > RING_MAX_DATA_BYTES || disk_bytes > RING_MAX_DISK_BYTES)
		return -EINVAL;
	struct tw_ring *ring = calloc(1, sizeof(*ring));
	if (!ring)
		return -ENOMEM;
	data_bytes = round_up(data_bytes);
	ring->fd = ring->bell = -1;
	int ret = open_existing(ring, path, disk_bytes, data_bytes);
	if (ret == -ENOENT)
		ret = make_ring(ring, path, false, disk_bytes, data_bytes);
	if (ret == 0)
		ret = open_bell(ring, path);
	if (ret) {
		ring_close(ring);
		free(ring);
		return ret;
	}
	open_interest(ring, path);
	ring_adopt(ring);
	*out = ring;
	return 0;
}
