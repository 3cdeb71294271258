/* SPDX-License-Identifier: BSD-3-Clause */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "event/put.h"

#include <string.h>

#define R "\xef\xbf\xbd"

static const struct {
	const char *in;
	const char *repaired; /* NULL: valid as it is */
} cases[] = {
	{ "", NULL },
	{ "plain /name", NULL },
	{ "\xc2\x80\xdf\xbf", NULL },
	{ "\xe0\xa0\x80\xef\xbf\xbf", NULL },
	{ "\xed\x9f\xbf\xee\x80\x80", NULL },
	{ "\xf0\x90\x80\x80\xf4\x8f\xbf\xbf", NULL },
	{ "\x80", R },					/* continuation alone */
	{ "\xc0\xaf", R R },				/* overlong '/' */
	{ "\xc1\xbf", R R },
	{ "\xe0\x80\xaf", R R R },			/* overlong, three bytes */
	{ "\xf0\x80\x80\xaf", R R R R },		/* overlong, four bytes */
	{ "\xed\xa0\x80", R R R },			/* surrogate */
	{ "\xed\xbf\xbf", R R R },
	{ "\xf4\x90\x80\x80", R R R R },		/* above U+10FFFF */
	{ "\xf5\x80", R R },
	{ "\xfe\xff", R R },
	{ "\xe2\x82", R },				/* cut off at the end: one part */
	{ "\xf0\x9f\x98", R },
	{ "a\xe2\x82" "b", "a" R "b" },			/* cut off by another character */
	{ "\xf0\x9f\xc3\xa9", R "\xc3\xa9" },
	{ "ok\xff" "ok", "ok" R "ok" },
};

/* A string without anything to escape, in its quotes. */
static bool put(const char *text, size_t n, struct tw_buf *out)
{
	struct tw_put put;
	tw_put_begin(&put, out);
	bool valid = tw_put_string(&put, text, n);
	tw_put_end(&put);
	return valid;
}

static void well_formed_is_kept_and_the_rest_replaced(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		const char *in = cases[i].in, *want = cases[i].repaired ? cases[i].repaired : in;
		struct tw_buf out = TW_BUF_INIT, again = TW_BUF_INIT;
		assert_int_equal(put(in, strlen(in), &out), cases[i].repaired == NULL);
		assert_int_equal(out.len, strlen(want) + 2);
		assert_memory_equal(out.data + 1, want, strlen(want));
		assert_true(put(out.data + 1, out.len - 2, &again));
		tw_buf_deinit(&out);
		tw_buf_deinit(&again);
	}
}

static void a_nul_byte_is_a_character(void **state)
{
	(void)state;
	struct tw_buf out = TW_BUF_INIT;
	assert_true(put("a\0b", 3, &out));
	assert_memory_equal(out.data, "\"a\\u0000b\"", out.len);
	assert_false(put("a\0\xff", 3, &out));
	tw_buf_deinit(&out);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(well_formed_is_kept_and_the_rest_replaced),
		cmocka_unit_test(a_nul_byte_is_a_character),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
