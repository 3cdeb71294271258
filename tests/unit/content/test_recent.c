/* SPDX-License-Identifier: BSD-3-Clause */
#include "../check.h"

#include "content/recent.h"

#include <string.h>

#define SECTOR 512u

static void put(struct tw_recent *recent, uint64_t sector, unsigned n, char fill)
{
	char data[64 * SECTOR];
	memset(data, fill, sizeof(data));
	ok(tw_recent_put(recent, sector * SECTOR, data, n * SECTOR));
}

/* The sectors from first on: a letter for each that is kept, a dot for each that is not. */
static void assert_holds(struct tw_recent *recent, uint64_t first, const char *want)
{
	char got[65] = "", data[64 * SECTOR];
	for (size_t i = 0; i < strlen(want);) {
		size_t missing, left = strlen(want) - i;
		size_t n = tw_recent_get(recent, (first + i) * SECTOR, data, left * SECTOR, &missing);
		for (size_t k = 0; k < n / SECTOR; k++) {
			got[i + k] = data[k * SECTOR];
			for (size_t b = 0; b < SECTOR; b++)
				assert_int_equal(data[k * SECTOR + b], got[i + k]);
		}
		if (!n)
			memset(got + i, '.', missing / SECTOR);
		assert_true((n ? n : missing) <= left * SECTOR && n + missing > 0);
		i += (n ? n : missing) / SECTOR;
	}
	assert_string_equal(got, want);
}

static struct tw_recent *new_recent(uint64_t units)
{
	struct tw_recent *recent;
	ok(tw_recent_create(units * 4096, &recent));
	return recent;
}

static void sectors_are_kept_as_they_were_written_last(void **state)
{
	(void)state;
	struct tw_recent *recent = new_recent(16);
	assert_holds(recent, 0, "........................");
	put(recent, 3, 14, 'a');
	assert_holds(recent, 0, "...aaaaaaaaaaaaaa.......");
	put(recent, 7, 2, 'b');
	assert_holds(recent, 0, "...aaaabbaaaaaaaa.......");
	put(recent, 20, 1, 'c');
	assert_holds(recent, 0, "...aaaabbaaaaaaaa...c...");
	tw_recent_destroy(recent);
}

static void what_is_not_known_any_more_goes(void **state)
{
	(void)state;
	struct tw_recent *recent = new_recent(16);
	put(recent, 0, 24, 'a');
	tw_recent_drop(recent, 5 * SECTOR, SECTOR);
	tw_recent_drop(recent, 7 * SECTOR, 3 * SECTOR);
	assert_holds(recent, 0, "aaaaa.a...aaaaaaaaaaaaaa");
	tw_recent_drop(recent, 16 * SECTOR, 8 * SECTOR);
	assert_holds(recent, 0, "aaaaa.a...aaaaaa........");
	/* More than there is: a discard of the whole disk. */
	tw_recent_drop(recent, 0, UINT64_C(1) << 50);
	assert_holds(recent, 0, "........................");
	put(recent, 0, 1, 'b');
	tw_recent_clear(recent);
	assert_holds(recent, 0, ".");
	tw_recent_destroy(recent);
}

static void what_was_not_written_for_longest_goes_first(void **state)
{
	(void)state;
	struct tw_recent *recent = new_recent(3);
	put(recent, 0, 8, 'a');
	put(recent, 8, 8, 'b');
	put(recent, 16, 8, 'c');
	put(recent, 0, 1, 'A');
	put(recent, 24, 8, 'd');
	assert_holds(recent, 0, "Aaaaaaaa........ccccccccdddddddd");
	tw_recent_destroy(recent);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(sectors_are_kept_as_they_were_written_last),
		cmocka_unit_test(what_is_not_known_any_more_goes),
		cmocka_unit_test(what_was_not_written_for_longest_goes_first),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
