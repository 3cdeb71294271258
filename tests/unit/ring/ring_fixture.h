/* SPDX-License-Identifier: BSD-3-Clause */
/* A ring in a directory of its own, for the tests of the ring. */
#ifndef RING_FIXTURE_H
#define RING_FIXTURE_H

#include "ring-layout.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#define DISK_BYTES (64u << 20)
#define RING_BYTES TW_RING_MIN_BYTES

struct fixture {
	char dir[64];
	char path[96];
};

static inline int fixture_setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	strcpy(f->dir, "/tmp/tapwire-ring-XXXXXX");
	if (!mkdtemp(f->dir))
		return -1;
	snprintf(f->path, sizeof(f->path), "%s/ring", f->dir);
	*state = f;
	return 0;
}

static inline int fixture_teardown(void **state)
{
	static const char *const suffixes[] = {"", ".cursor", ".bell", ".interest"};
	struct fixture *f = *state;
	for (size_t i = 0; i < sizeof(suffixes) / sizeof(*suffixes); i++) {
		char path[128];
		snprintf(path, sizeof(path), "%s%s", f->path, suffixes[i]);
		unlink(path);
	}
	/* Fails, and says so, when something else was left behind. */
	int ret = rmdir(f->dir);
	free(f);
	return ret;
}

static inline struct tw_ring *new_ring(const struct fixture *f)
{
	struct tw_ring *ring = NULL;
	assert_int_equal(tw_ring_create(f->path, DISK_BYTES, RING_BYTES, &ring), 0);
	return ring;
}

static inline struct tw_ring_reader *new_reader(const struct fixture *f)
{
	struct tw_ring_reader *r = NULL;
	assert_int_equal(tw_ring_reader_open(f->path, &r), 0);
	return r;
}

/* Content that tells where it belongs and when it was written. */
static inline void fill_sectors(char *buf, uint64_t sector, uint64_t nsectors, uint64_t stamp)
{
	for (uint64_t s = 0; s < nsectors; s++) {
		uint64_t *words = (uint64_t *)(buf + s * TW_SECTOR_SIZE);
		for (unsigned i = 0; i < TW_SECTOR_SIZE / 8; i += 2) {
			words[i] = sector + s;
			words[i + 1] = stamp;
		}
	}
}

static inline bool sectors_hold(const char *buf, uint64_t sector, uint64_t nsectors, uint64_t stamp)
{
	for (uint64_t s = 0; s < nsectors; s++) {
		const uint64_t *words = (const uint64_t *)(buf + s * TW_SECTOR_SIZE);
		for (unsigned i = 0; i < TW_SECTOR_SIZE / 8; i += 2)
			if (words[i] != sector + s || words[i + 1] != stamp)
				return false;
	}
	return true;
}

static inline int publish_stamped(
	struct tw_ring *ring, uint64_t sector, uint64_t nsectors, uint64_t stamp)
{
	char *buf = malloc(nsectors * TW_SECTOR_SIZE);
	fill_sectors(buf, sector, nsectors, stamp);
	int ret = tw_ring_publish(ring, 0, sector, nsectors, buf);
	free(buf);
	return ret;
}

static inline uint64_t missed(const struct tw_ring *ring)
{
	struct tw_ring_stats stats;
	tw_ring_stats(ring, &stats);
	return stats.missed;
}

/* Publishes 4 KiB writes from block 0 on until one is missed; returns its block. */
static inline uint64_t fill_ring(struct tw_ring *ring)
{
	const uint64_t before = missed(ring);
	for (uint64_t block = 0; block < 1000; block++) {
		publish_stamped(ring, block * 8, 8, block);
		if (missed(ring) > before)
			return block;
	}
	fail_msg("a ring without a consumer never filled up");
	return 0;
}

/* Takes and releases everything up to the next gap record: 1, or 0 when there is none. The gap
 * record is not released. */
static inline int drain_to_gap(struct tw_ring_reader *r)
{
	struct tw_record rec;
	int ret;
	while ((ret = tw_ring_next(r, &rec)) == 1) {
		if (rec.flags & TW_RECORD_GAP)
			return 1;
		tw_ring_release(r);
	}
	assert_int_equal(ret, 0);
	return 0;
}

#define RANGES_MAX 512

struct ranges {
	unsigned count;
	struct {
		uint64_t sector;
		uint64_t nsectors;
	} at[RANGES_MAX];
};

static inline void add_range(uint64_t sector, uint64_t nsectors, void *arg)
{
	struct ranges *ranges = arg;
	if (ranges->count < RANGES_MAX) {
		ranges->at[ranges->count].sector = sector;
		ranges->at[ranges->count].nsectors = nsectors;
	}
	ranges->count++;
}

static inline struct ranges taken_gap(struct tw_ring_reader *r)
{
	struct ranges ranges = {0};
	assert_int_equal(tw_ring_take_gap(r, add_range, &ranges), 0);
	return ranges;
}

#define assert_range(ranges, i, first, n)                                                          \
	do {                                                                                       \
		assert_int_equal((ranges).at[i].sector, first);                                    \
		assert_int_equal((ranges).at[i].nsectors, n);                                      \
	} while (0)

/* A file of the ring as an attacker, or a producer that was killed, may leave it. */
static inline void *map_file(const struct fixture *f, const char *suffix, size_t *bytes)
{
	char path[128];
	struct stat st;
	snprintf(path, sizeof(path), "%s%s", f->path, suffix);
	int fd = open(path, O_RDWR | O_CLOEXEC);
	assert_true(fd >= 0);
	assert_int_equal(fstat(fd, &st), 0);
	void *map = mmap(NULL, (size_t)st.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	assert_true(map != MAP_FAILED);
	close(fd);
	*bytes = (size_t)st.st_size;
	return map;
}

#define ring_test(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)

#endif
