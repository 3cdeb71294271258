/* SPDX-License-Identifier: BSD-3-Clause */
/* An image, a directory of rings, a test host, and a consumer that follows the ring into a replica. */
#ifndef DRIVER_FIXTURE_H
#define DRIVER_FIXTURE_H

#include "host.h"
#include "ring.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#define SECTORS 8192u
#define BYTES (SECTORS * 512u)

struct fixture {
	char dir[64], image[96], replica[96];
	struct host *host;
	unsigned records, ranges, gaps; /* that the consumer saw */
};

static inline int write_random(const char *path, size_t bytes)
{
	int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	static char block[65536];
	for (size_t i = 0; i < sizeof(block); i++)
		block[i] = (char)(i * 31 + i / 256);
	for (size_t at = 0; at < bytes; at += sizeof(block))
		if (write(fd, block, sizeof(block)) != sizeof(block))
			return -1;
	return close(fd);
}

static inline void make_ring_dir(const struct fixture *f)
{
	char path[160];
	snprintf(path, sizeof(path), "%s/rings", f->dir);
	assert_true(mkdir(path, 0700) == 0 || errno == EEXIST);
}

static inline int fixture_setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	char rings[160];
	const char *shm = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp";
	snprintf(f->dir, sizeof(f->dir), "%s/tapwire-driver-XXXXXX", shm);
	if (!mkdtemp(f->dir))
		return -1;
	snprintf(f->image, sizeof(f->image), "%s/image", f->dir);
	snprintf(f->replica, sizeof(f->replica), "%s/replica", f->dir);
	snprintf(rings, sizeof(rings), "%s/rings", f->dir);
	setenv("TAPWIRE_RING_DIR", rings, 1);
	f->host = host_create(1);
	*state = f;
	return write_random(f->image, BYTES) || write_random(f->replica, BYTES);
}

static inline int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st;
	(void)type;
	(void)ftw;
	return remove(path);
}

static inline int fixture_teardown(void **state)
{
	struct fixture *f = *state;
	if (f->host)
		host_destroy(f->host);
	int ret = nftw(f->dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
	free(f);
	return ret;
}

#define driver_test(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)

/* --- the guest --- */

struct wish {
	unsigned done;
	int error;
};

static inline void granted(void *arg, int error)
{
	struct wish *wish = arg;
	wish->done++;
	wish->error = error;
}

/* One write of secs sectors of one byte, waited for. Returns its error. */
static inline int write_sectors(struct disk *disk, uint64_t sec, unsigned secs, int byte)
{
	struct wish wish = {0, 1};
	struct segment segment = {malloc(secs * 512u), secs};
	memset(segment.buf, byte, secs * 512u);
	disk_submit(disk, TD_OP_WRITE, sec, &segment, 1, granted, &wish);
	disk_drain(disk);
	free(segment.buf);
	assert_int_equal(wish.done, 1);
	return wish.error;
}

/* --- the consumer --- */

static inline struct tw_ring_reader *open_reader(const struct fixture *f, const char *name)
{
	char path[160];
	struct tw_ring_reader *reader;
	snprintf(path, sizeof(path), "%s/rings/%s.ring", f->dir, name);
	assert_int_equal(tw_ring_reader_open(path, &reader), 0);
	return reader;
}

struct copying {
	int from, to;
};

static inline void copy_range(uint64_t sector, uint64_t nsectors, void *arg)
{
	const struct copying *copying = arg;
	char block[512];
	for (uint64_t s = sector; s < sector + nsectors; s++) {
		if (pread(copying->from, block, 512, (off_t)(s * 512)) != 512)
			break; /* a range may reach beyond an end that is no multiple of 4 KiB */
		assert_int_equal(pwrite(copying->to, block, 512, (off_t)(s * 512)), 512);
	}
}

/* Applies all that is in the ring to the replica; what is unknown is read from the image. */
static inline void follow(struct fixture *f, struct tw_ring_reader *reader)
{
	struct copying copying = {open(f->image, O_RDONLY | O_CLOEXEC), open(f->replica, O_RDWR | O_CLOEXEC)};
	struct tw_record record;
	int ret;
	while ((ret = tw_ring_next(reader, &record)) == 1) {
		f->records++;
		if (record.flags & TW_RECORD_GAP) {
			f->gaps++;
			assert_int_equal(tw_ring_take_gap(reader, copy_range, &copying), 0);
		} else if (record.flags & TW_RECORD_PAYLOAD) {
			assert_int_equal(pwrite(copying.to, record.payload, record.nsectors * 512u,
						 (off_t)(record.sector * 512)),
				record.nsectors * 512);
		} else {
			f->ranges++;
			copy_range(record.sector, record.nsectors, &copying);
		}
		tw_ring_release(reader);
	}
	assert_int_equal(ret, 0);
	close(copying.from);
	close(copying.to);
}

/* The replica is what the image is. */
static inline void check_replica(const struct fixture *f)
{
	char command[300];
	snprintf(command, sizeof(command), "cmp %s %s", f->image, f->replica);
	assert_int_equal(system(command), 0);
}

/* --- a storm --- */

#define DEPTH 32
#define BUF_SECS 64u

struct storm {
	struct fixture *f;
	struct disk *disk;
	unsigned left, at_once, errors, sectors;
	struct tw_ring_reader *reader; /* followed now and then */
	bool apart;                    /* no two requests in flight overlap */
};

struct guest_request {
	struct storm *storm;
	unsigned slot;
	char buf[BUF_SECS * 512];
};

static inline void storm_next(struct guest_request *request);

static inline void storm_done(void *arg, int error)
{
	struct guest_request *request = arg;
	request->storm->errors += error != 0;
	storm_next(request);
}

/* Mostly within few sectors, so that many overlap. */
static inline void storm_next(struct guest_request *request)
{
	struct storm *s = request->storm;
	struct segment segments[HOST_MAX_SEGMENTS];
	if (!s->left) {
		free(request);
		return;
	}
	s->left--;
	const unsigned n = 1 + host_random(s->f->host, 4);
	unsigned secs = 0;
	for (unsigned i = 0; i < n; i++) {
		segments[i].buf = request->buf + secs * 512;
		segments[i].secs = 1 + host_random(s->f->host, BUF_SECS / 4 - 1);
		secs += segments[i].secs;
	}
	for (unsigned i = 0; i < secs * 512; i += 2) {
		const unsigned r = host_random(s->f->host, 65536);
		memcpy(request->buf + i, &r, 2);
	}
	const int op = host_random(s->f->host, 8) ? TD_OP_WRITE : TD_OP_READ;
	unsigned room = host_random(s->f->host, 2) ? s->sectors : 4 * BUF_SECS, first = 0;
	if (s->apart) {
		room = s->sectors / s->at_once;
		first = request->slot * room;
	}
	disk_submit(s->disk, op, first + host_random(s->f->host, room - secs), segments, n,
		storm_done, request);
}

static inline void storm_begin(struct storm *s)
{
	for (unsigned i = 0; i < s->at_once; i++) {
		struct guest_request *request = malloc(sizeof(*request));
		request->storm = s;
		request->slot = i;
		storm_next(request);
	}
}

/* Many requests at once, until there were so many. Returns how many failed. */
static inline unsigned storm(struct fixture *f, struct disk *disk, struct tw_ring_reader *reader,
	unsigned requests, unsigned at_once, bool apart)
{
	struct storm s = {
		f, disk, requests, at_once, 0, (unsigned)disk_sectors(disk), reader, apart};
	storm_begin(&s);
	unsigned steps = 0;
	while (disk_waiting(disk)) {
		host_step(f->host, 2);
		if (reader && ++steps % 16 == 0)
			follow(f, reader);
	}
	return s.errors;
}

#endif
