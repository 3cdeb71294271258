/* SPDX-License-Identifier: BSD-3-Clause */
#include "../check.h"

#include "content/quiet.h"

#include <stdio.h>
#include <string.h>

static struct tw_quiet *new_quiet(size_t max)
{
	struct tw_quiet *quiet;
	ok(tw_quiet_create(max, &quiet));
	return quiet;
}

static void put(struct tw_quiet *quiet, uint32_t ino, uint64_t quiet_ms, int64_t now)
{
	const struct tw_quiet_file file = { .ino = ino, .transaction = ino + 1, .quiet_ms = quiet_ms };
	ok(tw_quiet_put(quiet, &file, now));
}

/* 0: none is due. It is taken out. */
static uint32_t take(struct tw_quiet *quiet, int64_t now)
{
	struct tw_quiet_file file;
	if (!tw_quiet_due(quiet, now, &file))
		return 0;
	assert_int_equal(file.transaction, file.ino + 1);
	tw_quiet_drop(quiet, file.ino);
	return file.ino;
}

static void each_has_its_time(void **state)
{
	(void)state;
	struct tw_quiet *quiet = new_quiet(10);
	assert_true(tw_quiet_next(quiet) == INT64_MAX);
	put(quiet, 1, 100, 0);
	put(quiet, 2, 10, 20);
	put(quiet, 3, 100, 5);
	assert_int_equal(tw_quiet_next(quiet), 30);
	assert_int_equal(take(quiet, 29), 0);
	assert_int_equal(take(quiet, 30), 2);
	assert_int_equal(tw_quiet_next(quiet), 100);
	assert_int_equal(take(quiet, 99), 0);
	assert_int_equal(take(quiet, 1000), 1);
	assert_int_equal(take(quiet, 1000), 3);
	assert_int_equal(take(quiet, 1000), 0);
	tw_quiet_destroy(quiet);
}

static void a_change_begins_it_again(void **state)
{
	(void)state;
	struct tw_quiet *quiet = new_quiet(10);
	put(quiet, 1, 100, 0);
	put(quiet, 2, 100, 10);
	assert_true(tw_quiet_again(quiet, 1, 20));
	assert_int_equal(tw_quiet_next(quiet), 110);
	put(quiet, 1, 100, 50);
	assert_int_equal(take(quiet, 109), 0);
	assert_int_equal(take(quiet, 110), 2);
	assert_int_equal(take(quiet, 149), 0);
	assert_true(tw_quiet_again(quiet, 1, 120));
	assert_false(tw_quiet_again(quiet, 2, 120));
	assert_int_equal(take(quiet, 219), 0);
	assert_true(tw_quiet_has(quiet, 1));
	/* Its rule may be another one by now. */
	put(quiet, 1, 7, 200);
	assert_int_equal(tw_quiet_count(quiet), 1);
	assert_int_equal(take(quiet, 206), 0);
	assert_int_equal(take(quiet, 207), 1);
	assert_false(tw_quiet_has(quiet, 1));
	tw_quiet_destroy(quiet);
}

static void who_finds_no_place_is_remembered(void **state)
{
	(void)state;
	struct tw_quiet *quiet = new_quiet(2);
	put(quiet, 7, 10, 0);
	put(quiet, 8, 10, 1);
	put(quiet, 900000, 10, 2);
	put(quiet, 63, 10, 2);
	put(quiet, 900000, 10, 3);
	put(quiet, 64, 10, 3);
	assert_int_equal(tw_quiet_count(quiet), 2);
	assert_int_equal(tw_quiet_late(quiet), 3);
	assert_true(tw_quiet_has(quiet, 900000));
	assert_int_equal(tw_quiet_take_late(quiet), 0);
	tw_quiet_drop(quiet, 64);
	assert_int_equal(take(quiet, 20), 7);
	assert_int_equal(tw_quiet_take_late(quiet), 63);
	assert_false(tw_quiet_has(quiet, 63));
	assert_int_equal(tw_quiet_take_late(quiet), 900000);
	assert_int_equal(tw_quiet_take_late(quiet), 0);
	/* From any place on. */
	put(quiet, 9, 10, 30);
	put(quiet, 5, 10, 30);
	assert_int_equal(take(quiet, 30), 8);
	assert_int_equal(tw_quiet_take_late(quiet), 5);
	tw_quiet_destroy(quiet);
}

static void who_gets_a_place_is_not_late_any_more(void **state)
{
	(void)state;
	struct tw_quiet *quiet = new_quiet(1);
	put(quiet, 7, 10, 0);
	put(quiet, 8, 10, 0);
	assert_int_equal(take(quiet, 10), 7);
	put(quiet, 8, 10, 11);
	assert_int_equal(tw_quiet_late(quiet), 0);
	assert_int_equal(tw_quiet_count(quiet), 1);
	tw_quiet_destroy(quiet);
}

static void collect(const struct tw_quiet_file *file, void *arg)
{
	char *text = arg;
	sprintf(text + strlen(text), "%u:%u%s ", file->ino, file->transaction, file->known ? "!" : "");
}

static void all_are_there_to_be_saved(void **state)
{
	(void)state;
	char text[100] = "";
	struct tw_quiet *quiet = new_quiet(2);
	const struct tw_quiet_file known = { .ino = 3, .transaction = 5, .quiet_ms = 10, .known = true };
	put(quiet, 9, 10, 0);
	ok(tw_quiet_put(quiet, &known, 0));
	put(quiet, 4000, 10, 0);
	put(quiet, 1, 10, 0);
	tw_quiet_each(quiet, collect, text);
	assert_string_equal(text, "9:10 3:5! 1:0 4000:0 ");
	tw_quiet_destroy(quiet);
	tw_quiet_destroy(NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_has_its_time),
		cmocka_unit_test(a_change_begins_it_again),
		cmocka_unit_test(who_finds_no_place_is_remembered),
		cmocka_unit_test(who_gets_a_place_is_not_late_any_more),
		cmocka_unit_test(all_are_there_to_be_saved),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
