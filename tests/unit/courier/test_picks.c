/* SPDX-License-Identifier: BSD-3-Clause */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <cmocka.h>

#include "courier/picks.h"

static void runs_come_back_as_they_were_added(void **state)
{
	(void)state;
	bool in[400] = { false };
	struct tw_picks picks = { .last = -1 };
	struct tw_picks copy = { .last = -1 };
	srand(7);
	for (int round = 0; round < 200; round++) {
		uint64_t count = 0;
		tw_picks_reset(&picks);
		for (int64_t id = 0; id < 400; id++) {
			in[id] = rand() % (1 + round % 5) == 0;
			if (in[id])
				tw_picks_add(&picks, id + 1000, 1);
			count += in[id];
		}
		assert_int_equal(picks.count, count);
		if (!count)
			continue;
		struct tw_error *err = tw_picks_load(&copy, picks.first, picks.last, picks.count, picks.runs.data,
			picks.runs.len);
		assert_null(err);
		struct tw_picks_walk walk = tw_picks_begin(&copy);
		int64_t at = 1000;
		int64_t id;
		uint32_t n;
		while (tw_picks_next(&walk, &id, &n)) {
			for (; at < id; at++)
				assert_false(in[at - 1000]);
			for (; at < id + n; at++)
				assert_true(in[at - 1000]);
		}
		for (; at < 1400; at++)
			assert_false(in[at - 1000]);
	}
	tw_picks_deinit(&picks);
	tw_picks_deinit(&copy);
}

static void one_run_needs_no_text(void **state)
{
	(void)state;
	struct tw_picks picks = { .last = -1 };
	assert_null(tw_picks_load(&picks, 5, 9, 5, NULL, 0));
	struct tw_picks_walk walk = tw_picks_begin(&picks);
	int64_t id;
	uint32_t n;
	assert_true(tw_picks_next(&walk, &id, &n));
	assert_int_equal(id, 5);
	assert_int_equal(n, 5);
	assert_false(tw_picks_next(&walk, &id, &n));
	tw_picks_deinit(&picks);
}

static void what_contradicts_itself_is_refused(void **state)
{
	(void)state;
	static const uint32_t runs[] = { 2, 3, 4 };
	static const struct {
		int64_t first, last;
		uint64_t count;
		size_t bytes;
	} bad[] = { { 1, 8, 6, 12 }, { 1, 9, 5, 12 }, { 1, 9, 6, 8 }, { 1, 9, 6, 11 }, { 9, 1, 0, 0 },
		{ 1, 9, 6, 0 } };
	struct tw_picks picks = { .last = -1 };
	assert_null(tw_picks_load(&picks, 1, 9, 6, runs, 12));
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		struct tw_error *err =
			tw_picks_load(&picks, bad[i].first, bad[i].last, bad[i].count, runs, bad[i].bytes);
		assert_non_null(err);
		assert_int_equal(tw_error_code(err), TW_BAD_DATA);
		tw_error_destroy(err);
	}
	tw_picks_deinit(&picks);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(runs_come_back_as_they_were_added),
		cmocka_unit_test(one_run_needs_no_text),
		cmocka_unit_test(what_contradicts_itself_is_refused),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
