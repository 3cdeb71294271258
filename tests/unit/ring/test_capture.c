/* SPDX-License-Identifier: BSD-3-Clause */
/* What a backend with parallel requests puts into the ring. */
#include "ring_fixture.h"

#include "capture.h"

static void report(const char *fmt, ...)
{
	fail_msg("reported: %s", fmt);
}

static void content_that_cannot_be_read_back_is_a_gap(void **state)
{
	const struct fixture *f = *state;
	struct capture *c;
	struct tw_record record;
	char block[4096] = "x";
	assert_int_equal(capture_create(f->path, RING_BYTES, NULL, false, DISK_BYTES, report, &c), 0);
	struct tw_ring_reader *r = new_reader(f);
	/* Nothing is wanted: a range alone would mean just that. */
	tw_ring_want(r, 0, DISK_BYTES / TW_SECTOR_SIZE, false);
	tw_ring_interest(r, true);
	capture_publish(c, 0, 80, 8, block, false);
	capture_publish(c, TW_RECORD_ZEROES, 88, 8, NULL, false);
	capture_publish(c, 0, 800, 8, NULL, false);
	assert_int_equal(tw_ring_next(r, &record), 1);
	assert_int_equal(record.sector, 80);
	assert_false(record.flags & TW_RECORD_GAP);
	assert_int_equal(tw_ring_next(r, &record), 1);
	assert_int_equal(record.flags, TW_RECORD_ZEROES);
	assert_int_equal(tw_ring_next(r, &record), 1);
	assert_int_equal(record.flags, TW_RECORD_GAP);
	struct ranges ranges = taken_gap(r);
	assert_int_equal(ranges.count, 1);
	assert_range(ranges, 0, 800, 8);
	tw_ring_release(r);
	tw_ring_reader_destroy(r);
	capture_destroy(c);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(content_that_cannot_be_read_back_is_a_gap, fixture_setup,
			fixture_teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
