/* SPDX-License-Identifier: BSD-3-Clause */
/* The interest map: what the consumer does not want the content of passes as ranges. */
#include "ring_fixture.h"

#define BLOCK 8u /* sectors */

static uint64_t spared(const struct tw_ring *ring)
{
	struct tw_ring_stats stats;
	tw_ring_stats(ring, &stats);
	return stats.spared_bytes;
}

/* Publishes nsectors with content, and says whether the record that arrives has it. */
static bool arrives_whole(
	struct tw_ring *ring, struct tw_ring_reader *r, uint64_t sector, uint64_t nsectors)
{
	struct tw_record record;
	publish_stamped(ring, sector, nsectors, 1);
	assert_int_equal(tw_ring_next(r, &record), 1);
	assert_int_equal(record.sector, sector);
	assert_int_equal(record.nsectors, nsectors);
	const bool whole = record.payload != NULL;
	assert_int_equal(whole, (record.flags & TW_RECORD_PAYLOAD) != 0);
	if (whole)
		assert_true(sectors_hold(record.payload, sector, nsectors, 1));
	tw_ring_release(r);
	return whole;
}

static void interest_path(char *out, size_t size, const struct fixture *f)
{
	snprintf(out, size, "%s.interest", f->path);
}

static void all_is_wanted_until_the_map_is_active(void **state)
{
	struct tw_ring *ring = new_ring(*state);
	struct tw_ring_reader *r = new_reader(*state);
	assert_true(tw_ring_has_interest(r));
	tw_ring_want(r, 0, DISK_BYTES / TW_SECTOR_SIZE, false);
	assert_true(arrives_whole(ring, r, 64, BLOCK));
	tw_ring_interest(r, true);
	assert_false(arrives_whole(ring, r, 64, BLOCK));
	assert_int_equal(spared(ring), 4096);
	tw_ring_interest(r, false);
	assert_true(arrives_whole(ring, r, 64, BLOCK));
	tw_ring_reader_destroy(r);
	tw_ring_destroy(ring);
}

static void a_write_that_touches_a_wanted_block_arrives_whole(void **state)
{
	struct tw_ring *ring = new_ring(*state);
	struct tw_ring_reader *r = new_reader(*state);
	tw_ring_interest(r, true);
	/* At the edges of the map's words, too. */
	static const uint64_t blocks[] = {0, 5, 63, 64, 127, 1000, DISK_BYTES / 4096 - 1};
	for (size_t i = 0; i < sizeof(blocks) / sizeof(*blocks); i++) {
		const uint64_t block = blocks[i];
		tw_ring_want(r, block * BLOCK, BLOCK, true);
		assert_true(arrives_whole(ring, r, block * BLOCK, BLOCK));
		assert_true(arrives_whole(ring, r, block * BLOCK + 7, 1));
		if (block > 1) {
			assert_true(arrives_whole(ring, r, (block - 2) * BLOCK, 3 * BLOCK));
			assert_false(arrives_whole(ring, r, (block - 2) * BLOCK, 2 * BLOCK));
		}
		if (block + 2 < DISK_BYTES / 4096)
			assert_false(arrives_whole(ring, r, (block + 1) * BLOCK, 2 * BLOCK));
		tw_ring_want(r, block * BLOCK, BLOCK, false);
		assert_false(arrives_whole(ring, r, block * BLOCK, BLOCK));
	}
	tw_ring_reader_destroy(r);
	tw_ring_destroy(ring);
}

static void a_block_of_which_a_part_is_wanted_is_wanted(void **state)
{
	struct tw_ring *ring = new_ring(*state);
	struct tw_ring_reader *r = new_reader(*state);
	tw_ring_interest(r, true);
	tw_ring_want(r, 8 * BLOCK + 3, 1, true);
	assert_true(arrives_whole(ring, r, 8 * BLOCK, 1));
	/* Not wanting a part of it says nothing of the rest. */
	tw_ring_want(r, 8 * BLOCK, BLOCK - 1, false);
	tw_ring_want(r, 8 * BLOCK + 1, BLOCK - 1, false);
	assert_true(arrives_whole(ring, r, 8 * BLOCK, BLOCK));
	tw_ring_want(r, 7 * BLOCK + 1, 2 * BLOCK, false);
	assert_false(arrives_whole(ring, r, 8 * BLOCK, BLOCK));
	/* The whole disk, and beyond. */
	tw_ring_want(r, 0, UINT64_MAX, true);
	assert_true(arrives_whole(ring, r, DISK_BYTES / TW_SECTOR_SIZE - 1, 1));
	tw_ring_want(r, 0, UINT64_MAX, false);
	assert_false(arrives_whole(ring, r, DISK_BYTES / TW_SECTOR_SIZE - 1, 1));
	tw_ring_want(r, DISK_BYTES / TW_SECTOR_SIZE, 8, true);
	tw_ring_reader_destroy(r);
	tw_ring_destroy(ring);
}

static void both_sides_find_the_map_again(void **state)
{
	struct tw_ring *ring = new_ring(*state);
	struct tw_ring_reader *r = new_reader(*state);
	tw_ring_interest(r, true);
	tw_ring_reader_destroy(r);
	tw_ring_destroy(ring);
	ring = new_ring(*state);
	r = new_reader(*state);
	assert_false(arrives_whole(ring, r, 64, BLOCK));
	tw_ring_reader_destroy(r);
	tw_ring_destroy(ring);
}

static void a_ring_of_another_size_has_a_map_of_its_own(void **state)
{
	const struct fixture *f = *state;
	struct tw_ring *ring = new_ring(f);
	struct tw_ring_reader *r = new_reader(f);
	tw_ring_interest(r, true);
	tw_ring_reader_destroy(r);
	tw_ring_destroy(ring);
	assert_int_equal(tw_ring_create(f->path, DISK_BYTES, 2 * RING_BYTES, &ring), 0);
	r = new_reader(f);
	assert_true(tw_ring_has_interest(r));
	assert_true(arrives_whole(ring, r, 64, BLOCK));
	tw_ring_reader_destroy(r);
	tw_ring_destroy(ring);
}

/* An older producer makes none; a consumer that finds none wants everything. */
static void a_ring_without_a_map_works(void **state)
{
	char path[128];
	struct tw_ring *ring = new_ring(*state);
	interest_path(path, sizeof(path), *state);
	assert_int_equal(unlink(path), 0);
	struct tw_ring_reader *r = new_reader(*state);
	assert_false(tw_ring_has_interest(r));
	tw_ring_want(r, 0, 8, false);
	tw_ring_interest(r, true);
	assert_true(arrives_whole(ring, r, 64, BLOCK));
	tw_ring_reader_destroy(r);
	tw_ring_destroy(ring);
	/* The next producer makes it, and goes on with the ring. */
	ring = new_ring(*state);
	r = new_reader(*state);
	assert_true(tw_ring_has_interest(r));
	tw_ring_reader_destroy(r);
	tw_ring_destroy(ring);
}

static void a_file_that_is_no_map_is_replaced(void **state)
{
	char path[128];
	struct tw_ring *ring = new_ring(*state);
	tw_ring_destroy(ring);
	interest_path(path, sizeof(path), *state);
	assert_int_equal(truncate(path, 100), 0);
	ring = new_ring(*state);
	struct tw_ring_reader *r = new_reader(*state);
	assert_true(tw_ring_has_interest(r));
	tw_ring_interest(r, true);
	assert_false(arrives_whole(ring, r, 64, BLOCK));
	tw_ring_reader_destroy(r);
	tw_ring_destroy(ring);
}

/* Whatever the consumer writes there decides on content only. */
static void a_hostile_map_decides_on_content_only(void **state)
{
	char path[128];
	struct stat st;
	struct tw_ring *ring = new_ring(*state);
	struct tw_ring_reader *r = new_reader(*state);
	interest_path(path, sizeof(path), *state);
	int fd = open(path, O_RDWR | O_CLOEXEC);
	assert_true(fd >= 0);
	assert_int_equal(fstat(fd, &st), 0);
	uint8_t *map = mmap(NULL, (size_t)st.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	assert_true(map != MAP_FAILED);
	close(fd);
	srand(1);
	for (int i = 0; i < 2000; i++) {
		for (int k = 0; k < 64; k++)
			map[(size_t)rand() % (size_t)st.st_size] = (uint8_t)rand();
		const uint64_t sector = (uint64_t)rand() % (DISK_BYTES / TW_SECTOR_SIZE - 64);
		(void)arrives_whole(ring, r, sector, 1 + (uint64_t)rand() % 24);
	}
	munmap(map, (size_t)st.st_size);
	tw_ring_reader_destroy(r);
	tw_ring_destroy(ring);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		ring_test(all_is_wanted_until_the_map_is_active),
		ring_test(a_write_that_touches_a_wanted_block_arrives_whole),
		ring_test(a_block_of_which_a_part_is_wanted_is_wanted),
		ring_test(both_sides_find_the_map_again),
		ring_test(a_ring_of_another_size_has_a_map_of_its_own),
		ring_test(a_ring_without_a_map_works),
		ring_test(a_file_that_is_no_map_is_replaced),
		ring_test(a_hostile_map_decides_on_content_only),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
