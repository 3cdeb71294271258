/* SPDX-License-Identifier: BSD-3-Clause */
/* Rings of other versions than the one that is made. The older one is made here after docs/ring.md,
 * with nothing of the product's. */
#include "ring_fixture.h"

#define HUGE_BYTES (2u << 20)
#define DATA_BYTES (2 * HUGE_BYTES) /* large enough for the versions to differ */

static void put_u64(unsigned char *at, uint64_t value)
{
	memcpy(at, &value, sizeof(value));
}

static void put_u32(unsigned char *at, uint32_t value)
{
	memcpy(at, &value, sizeof(value));
}

static void write_file(const char *path, const char *suffix, const void *bytes, size_t size)
{
	char name[128];
	snprintf(name, sizeof(name), "%s%s", path, suffix);
	int fd = open(name, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, bytes, size), size);
	close(fd);
}

/* Two records of one sector each, nothing released. Where the data begins: the disk's 16,384 blocks
 * are 4 KiB of bits, its 32 lines less than a page of summary. */
static void make_older_ring(const struct fixture *f, uint32_t version)
{
	const size_t start = 3 * 4096 + 2 * (4096 + 4096), size = start + DATA_BYTES;
	unsigned char *file = calloc(1, size), cursor[4096] = {0};
	char bell[128];
	put_u64(file, 0x31474e4952575400ull);
	put_u32(file + 8, version);
	put_u32(file + 12, 48);
	put_u64(file + 16, DISK_BYTES);
	put_u64(file + 24, DATA_BYTES);
	memset(file + 32, 0xab, 16);
	memset(cursor, 0xab, 16);
	for (unsigned i = 0; i < 2; i++) {
		unsigned char *record = file + start + i * (32 + 512);
		put_u64(record, 1 + i);                  /* sequence */
		put_u64(record + 8, 1700000000000000000); /* time */
		put_u64(record + 16, 100 + i);
		put_u32(record + 24, 1);
		put_u32(record + 28, 1); /* payload */
		fill_sectors((char *)record + 32, 100 + i, 1, version);
	}
	put_u64(file + 4096, 2 * (32 + 512)); /* head */
	put_u64(file + 4096 + 8, 32 + 512);   /* last_pos */
	put_u64(file + 4096 + 48, 2);         /* records */
	write_file(f->path, "", file, size);
	write_file(f->path, ".cursor", cursor, sizeof(cursor));
	snprintf(bell, sizeof(bell), "%s.bell", f->path);
	assert_int_equal(mkfifo(bell, 0600), 0);
	free(file);
}

static void assert_record(struct tw_ring_reader *r, uint64_t sequence, uint64_t sector,
	uint64_t stamp)
{
	struct tw_record rec;
	assert_int_equal(tw_ring_next(r, &rec), 1);
	assert_int_equal(rec.sequence, sequence);
	assert_int_equal(rec.sector, sector);
	assert_true(sectors_hold(rec.payload, sector, rec.nsectors, stamp));
}

static void an_older_ring_is_read(void **state)
{
	struct tw_record rec;
	make_older_ring(*state, 1);
	struct tw_ring_reader *r = new_reader(*state);
	struct tw_ring_stats stats;
	assert_record(r, 1, 100, 1);
	assert_record(r, 2, 101, 1);
	assert_int_equal(tw_ring_next(r, &rec), 0);
	tw_ring_reader_stats(r, &stats);
	assert_int_equal(stats.records, 2);
	assert_int_equal(stats.spared_bytes, 0);
	assert_false(tw_ring_has_interest(r));
	tw_ring_release(r);
	assert_int_equal(tw_ring_reader_backlog(r), 0);
	tw_ring_reader_destroy(r);
}

/* A driver that is updated under a running guest: what the old one left unread is not lost. */
static void an_older_ring_is_taken_over(void **state)
{
	const struct fixture *f = *state;
	struct tw_ring *ring = NULL;
	make_older_ring(f, 1);
	assert_int_equal(tw_ring_create(f->path, DISK_BYTES, DATA_BYTES, &ring), 0);
	publish_stamped(ring, 500, 40, 7);
	struct tw_ring_reader *r = new_reader(f);
	assert_true(tw_ring_has_interest(r)); /* the new one's */
	assert_record(r, 1, 100, 1);
	assert_record(r, 2, 101, 1);
	assert_record(r, 3, 500, 7);
	tw_ring_reader_destroy(r);
	tw_ring_destroy(ring);
}

static void a_newer_ring_is_refused_and_replaced(void **state)
{
	const struct fixture *f = *state;
	const uint32_t versions[] = {0, RING_VERSION + 1, UINT32_MAX};
	for (size_t i = 0; i < sizeof(versions) / sizeof(*versions); i++) {
		struct tw_ring_reader *r = NULL;
		struct tw_ring *ring = NULL;
		make_older_ring(f, versions[i]);
		assert_int_equal(tw_ring_reader_open(f->path, &r), -EBADMSG);
		assert_int_equal(tw_ring_create(f->path, DISK_BYTES, DATA_BYTES, &ring), 0);
		r = new_reader(f);
		assert_int_equal(tw_ring_reader_backlog(r), 0);
		publish_stamped(ring, 1, 1, 9);
		assert_record(r, 1, 1, 9);
		tw_ring_reader_destroy(r);
		tw_ring_destroy(ring);
		char bell[128];
		snprintf(bell, sizeof(bell), "%s.bell", f->path);
		unlink(bell);
	}
}

/* A mapping can have huge pages only where file and address agree on where they begin. */
static void large_data_begin_at_a_huge_page(void **state)
{
	const struct fixture *f = *state;
	struct tw_ring *ring = NULL;
	assert_int_equal(tw_ring_create(f->path, DISK_BYTES, DATA_BYTES, &ring), 0);
	publish_stamped(ring, 300, 1, 5);
	struct tw_ring_reader *r = new_reader(f);
	struct tw_record rec;
	size_t bytes;
	assert_int_equal(tw_ring_next(r, &rec), 1);
	assert_int_equal((uintptr_t)rec.payload % HUGE_BYTES, sizeof(struct ring_record));
	const char *map = map_file(f, "", &bytes);
	assert_int_equal(bytes, HUGE_BYTES + DATA_BYTES);
	assert_true(sectors_hold(map + HUGE_BYTES + sizeof(struct ring_record), 300, 1, 5));
	munmap((void *)map, bytes);
	tw_ring_reader_destroy(r);
	tw_ring_destroy(ring);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		ring_test(an_older_ring_is_read),
		ring_test(an_older_ring_is_taken_over),
		ring_test(a_newer_ring_is_refused_and_replaced),
		ring_test(large_data_begin_at_a_huge_page),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
