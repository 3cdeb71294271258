/* SPDX-License-Identifier: BSD-3-Clause */
#include "../check.h"

#include "volume/missed.h"

static void sectors_become_bytes(void **state)
{
	(void)state;
	struct tw_missed missed = { 0 };
	const struct tw_record record = { 1, 7, 8, 16, TW_RECORD_PAYLOAD, NULL };
	ok(tw_missed_add(&missed, &record));
	assert_int_equal(missed.n, 1);
	assert_int_equal(missed.last_ns, 7);
	assert_int_equal(missed.ranges[0].offset, 4096);
	assert_int_equal(missed.ranges[0].length, 8192);
	tw_missed_clear(&missed);
	assert_int_equal(missed.n, 0);
	assert_null(missed.ranges);
}

static void a_record_far_out_and_long_does_not_wrap(void **state)
{
	(void)state;
	struct tw_missed missed = { 0 };
	const struct tw_record record = { 1, 0, 1ull << 40, UINT32_MAX, 0, NULL };
	ok(tw_missed_add(&missed, &record));
	assert_true(missed.ranges[0].offset == 1ull << 49);
	assert_true(missed.ranges[0].length == (uint64_t)UINT32_MAX * 512);
	tw_missed_clear(&missed);
}

static bool covered(const struct tw_missed *missed, uint64_t at)
{
	for (size_t i = 0; i < missed->n; i++)
		if (at >= missed->ranges[i].offset && at - missed->ranges[i].offset < missed->ranges[i].length)
			return true;
	return false;
}

/* A guest that rewrites the same place for as long as a crawl takes. */
static void a_long_list_is_joined(void **state)
{
	(void)state;
	struct tw_missed missed = { 0 };
	for (uint64_t i = 0; i < 1000000; i++)
		ok(tw_missed_add_range(&missed, i % 1000 * 8192, 4096));
	assert_true(missed.n <= 131072);
	for (uint64_t i = 0; i < 1000; i++) {
		assert_true(covered(&missed, i * 8192) && covered(&missed, i * 8192 + 4095));
		assert_false(covered(&missed, i * 8192 + 4096));
	}
	tw_missed_clear(&missed);
}

static void bytes_are_counted_once(void **state)
{
	(void)state;
	struct tw_missed missed = { 0 };
	assert_int_equal(tw_missed_bytes(&missed), 0);
	ok(tw_missed_add_range(&missed, 8192, 4096));
	ok(tw_missed_add_range(&missed, 0, 4096));
	ok(tw_missed_add_range(&missed, 1024, 8192));
	assert_int_equal(tw_missed_bytes(&missed), 12288);
	assert_int_equal(missed.n, 1);
	tw_missed_clear(&missed);
}

static void what_was_missed_is_found(void **state)
{
	(void)state;
	struct tw_missed missed = { 0 };
	assert_false(tw_missed_hits(&missed, 0, UINT64_MAX));
	for (uint64_t i = 100; i-- > 0;)
		ok(tw_missed_add_range(&missed, i * 8192, 4096));
	tw_missed_tidy(&missed);
	for (uint64_t i = 0; i < 100; i++) {
		assert_true(tw_missed_hits(&missed, i * 8192, 1));
		assert_true(tw_missed_hits(&missed, i * 8192 + 4095, 1));
		assert_false(tw_missed_hits(&missed, i * 8192 + 4096, 4096));
		assert_true(tw_missed_hits(&missed, i * 8192 + 4096, 4097) == (i < 99));
	}
	tw_missed_clear(&missed);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(sectors_become_bytes),
		cmocka_unit_test(a_record_far_out_and_long_does_not_wrap),
		cmocka_unit_test(a_long_list_is_joined),
		cmocka_unit_test(bytes_are_counted_once),
		cmocka_unit_test(what_was_missed_is_found),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
