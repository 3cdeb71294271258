/* SPDX-License-Identifier: BSD-3-Clause */
#include "../check.h"

#include "base/numtab.h"

#include <stdlib.h>

static void an_empty_table_has_nothing(void **state)
{
	(void)state;
	struct tw_numtab tab = { 0 };
	uint64_t value = 7;
	assert_false(tw_numtab_get(&tab, 1, &value));
	assert_true(value == 7);
	tw_numtab_drop(&tab, 1);
	tw_numtab_clear(&tab);
}

static void a_value_is_replaced(void **state)
{
	(void)state;
	struct tw_numtab tab = { 0 };
	uint64_t value;
	ok(tw_numtab_set(&tab, UINT32_MAX, 1));
	ok(tw_numtab_set(&tab, UINT32_MAX, UINT64_MAX));
	assert_true(tw_numtab_get(&tab, UINT32_MAX, &value) && value == UINT64_MAX);
	assert_int_equal(tab.n, 1);
	tw_numtab_clear(&tab);
	assert_false(tw_numtab_get(&tab, UINT32_MAX, &value));
}

/* Against an array: numbers close to each other, so that they crowd. */
static void random_changes_are_those_of_an_array(void **state)
{
	(void)state;
	enum { KEYS = 3000 };
	uint64_t *is = calloc(KEYS, sizeof(*is)), value;
	struct tw_numtab tab = { 0 };
	uint32_t n = 0;
	struct dice dice = { 5 };
	for (unsigned i = 0; i < 200000; i++) {
		/* First more and more, then fewer and fewer. */
		uint32_t key = 1 + roll(&dice, KEYS - 1);
		bool set = roll(&dice, 200000) > i;
		n += set && !is[key];
		n -= !set && is[key];
		is[key] = set ? i + 1 : 0;
		if (set)
			ok(tw_numtab_set(&tab, key, i + 1));
		else
			tw_numtab_drop(&tab, key);
		assert_int_equal(tab.n, n);
		if (i % 5000)
			continue;
		for (key = 1; key < KEYS; key++) {
			bool found = tw_numtab_get(&tab, key, &value);
			assert_int_equal(found, is[key] != 0);
			assert_true(!found || value == is[key]);
		}
	}
	assert_true(tab.mask < 4 * KEYS);
	for (uint32_t key = 1; key < KEYS; key++)
		tw_numtab_drop(&tab, key);
	assert_int_equal(tab.n, 0);
	assert_true(tab.mask < 64); /* it gives room back */
	tw_numtab_clear(&tab);
	free(is);
}

static void an_emptied_table_is_an_empty_one(void **state)
{
	(void)state;
	struct tw_numtab tab = { 0 };
	uint64_t value;
	tw_numtab_empty(&tab);
	for (uint32_t n = 1; n < 100000; n *= 7) {
		for (uint32_t key = 1; key <= n; key++)
			ok(tw_numtab_set(&tab, key * 3, n));
		tw_numtab_empty(&tab);
		for (uint32_t key = 1; key <= n * 3; key++)
			assert_false(tw_numtab_get(&tab, key, &value));
	}
	for (uint32_t i = 0; i < 2; i++) {
		ok(tw_numtab_set(&tab, 5, 1));
		tw_numtab_empty(&tab);
	}
	assert_true(tab.mask < 64); /* nobody needs the room any more */
	tw_numtab_clear(&tab);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(an_empty_table_has_nothing),
		cmocka_unit_test(a_value_is_replaced),
		cmocka_unit_test(random_changes_are_those_of_an_array),
		cmocka_unit_test(an_emptied_table_is_an_empty_one),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
