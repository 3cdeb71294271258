/* SPDX-License-Identifier: BSD-3-Clause */
/* Whether what was read from the image is what the records so far have said. */
#include "ring_fixture.h"

/* 1 when no later write has touched one of the sectors. */
static int untouched(const struct tw_ring_reader *r, uint64_t after, uint64_t sector, uint32_t n)
{
	uint8_t touched[1024] = {0};
	int ret = tw_ring_touched(r, after, sector, n, touched);
	return ret ? ret : !memchr(touched, 1, n);
}

/* Takes all records; the number of the last one. */
static uint64_t take_all(struct tw_ring_reader *r)
{
	struct tw_record rec = {0};
	uint64_t last = 0;
	while (tw_ring_next(r, &rec) == 1)
		last = rec.sequence;
	return last;
}

static void a_record_that_is_ahead_counts(void **state)
{
	struct tw_ring *ring = new_ring(*state);
	struct tw_ring_reader *r = new_reader(*state);
	publish_stamped(ring, 8, 8, 1);
	const uint64_t last = take_all(r);
	assert_int_equal(untouched(r, last, 8, 8), 1);

	publish_stamped(ring, 100, 8, 2);
	tw_ring_publish(ring, TW_RECORD_FLUSH, 0, 0, NULL);
	tw_ring_publish(ring, TW_RECORD_ZEROES, 200, 8, NULL);
	assert_int_equal(untouched(r, last, 8, 8), 1);
	assert_int_equal(untouched(r, last, 99, 1), 1);
	assert_int_equal(untouched(r, last, 99, 2), 0);
	assert_int_equal(untouched(r, last, 107, 1), 0);
	assert_int_equal(untouched(r, last, 108, 1), 1);
	assert_int_equal(untouched(r, last, 203, 1), 0);
	assert_int_equal(untouched(r, last, 0, 1000), 0);

	/* Looking takes nothing. */
	struct tw_record rec;
	assert_int_equal(tw_ring_next(r, &rec), 1);
	assert_int_equal(rec.sector, 100);
	assert_int_equal(untouched(r, rec.sequence, 100, 8), 1);
	tw_ring_reader_destroy(r);
	tw_ring_destroy(ring);
}

/* A consumer that has died may have kept records that the ring brings once more. */
static void sectors_are_told_apart(void **state)
{
	struct tw_ring *ring = new_ring(*state);
	struct tw_ring_reader *r = new_reader(*state);
	uint8_t touched[16] = {0};
	tw_ring_publish(ring, TW_RECORD_ZEROES, 6, 3, NULL);
	tw_ring_publish(ring, TW_RECORD_ZEROES, 15, 100, NULL);
	tw_ring_intent(ring, 3, UINT64_MAX - 1, UINT64_MAX);
	tw_ring_intent(ring, 4, 12, 1);
	assert_int_equal(tw_ring_touched(r, 0, 0, sizeof(touched), touched), 0);
	assert_memory_equal(touched, "\0\0\0\0\0\0\1\1\1\0\0\0\1\0\0\1", sizeof(touched));
	tw_ring_reader_destroy(r);
	tw_ring_destroy(ring);
}

static void what_was_followed_before_does_not_count(void **state)
{
	struct tw_ring *ring = new_ring(*state);
	struct tw_ring_reader *r = new_reader(*state);
	publish_stamped(ring, 8, 8, 1);
	publish_stamped(ring, 16, 8, 2);
	assert_int_equal(untouched(r, 0, 8, 8), 0);
	assert_int_equal(untouched(r, 1, 8, 8), 1);
	assert_int_equal(untouched(r, 1, 16, 8), 0);
	assert_int_equal(untouched(r, 2, 16, 8), 1);
	tw_ring_reader_destroy(r);
	tw_ring_destroy(ring);
}

static void a_request_on_its_way_counts(void **state)
{
	struct tw_ring *ring = new_ring(*state);
	struct tw_ring_reader *r = new_reader(*state);
	tw_ring_intent(ring, 255, 40, 8);
	assert_int_equal(untouched(r, 0, 32, 8), 1);
	assert_int_equal(untouched(r, 0, 47, 1), 0);
	tw_ring_intent(ring, 255, 0, 0); /* it has failed */
	assert_int_equal(untouched(r, 0, 47, 1), 1);
	tw_ring_reader_destroy(r);
	tw_ring_destroy(ring);
}

static void a_gap_counts_where_it_is(void **state)
{
	struct tw_ring *ring = new_ring(*state);
	struct tw_ring_reader *r = new_reader(*state);
	const uint64_t block = fill_ring(ring);
	uint64_t last = 0;
	struct tw_record rec;
	/* Open, and not announced. */
	assert_int_not_equal(tw_ring_reader_open_gap(r), 0);
	assert_int_equal(untouched(r, UINT32_MAX, block * 8, 8), 0);
	assert_int_equal(untouched(r, UINT32_MAX, (block + 1) * 8, 8), 1);
	while (tw_ring_next(r, &rec) == 1) {
		last = rec.sequence;
		tw_ring_release(r);
	}
	assert_int_equal(tw_ring_poll(ring), 0);
	/* Announced, and not taken. */
	assert_int_equal(tw_ring_reader_open_gap(r), 0);
	assert_int_equal(untouched(r, last, block * 8, 1), 0);
	assert_int_equal(untouched(r, last, block * 8 + 8, 1), 1);
	tw_ring_reader_destroy(r);
	tw_ring_destroy(ring);
}

static void what_is_beyond_the_disk_is_nothing(void **state)
{
	struct tw_ring *ring = new_ring(*state);
	struct tw_ring_reader *r = new_reader(*state);
	const uint64_t end = DISK_BYTES / TW_SECTOR_SIZE;
	assert_int_equal(untouched(r, 0, end - 1, 1), 1);
	assert_int_equal(untouched(r, 0, end, 1), -EINVAL);
	assert_int_equal(untouched(r, 0, end - 1, 2), -EINVAL);
	assert_int_equal(untouched(r, 0, 1, UINT32_MAX), -EINVAL);
	assert_int_equal(untouched(r, 0, 1, 0), -EINVAL);
	tw_ring_reader_destroy(r);
	tw_ring_destroy(ring);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		ring_test(a_record_that_is_ahead_counts),
		ring_test(sectors_are_told_apart),
		ring_test(what_was_followed_before_does_not_count),
		ring_test(a_request_on_its_way_counts),
		ring_test(a_gap_counts_where_it_is),
		ring_test(what_is_beyond_the_disk_is_nothing),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
