/* SPDX-License-Identifier: BSD-3-Clause */
#include "../check.h"

#include <errno.h>
#include <sysexits.h>

static void an_error_carries_code_and_message(void **state)
{
	(void)state;
	struct tw_error *err = tw_error_create(TW_BAD_DATA, "inode %u: %s", 12u, "bad");
	assert_int_equal(tw_error_code(err), TW_BAD_DATA);
	assert_string_equal(tw_error_message(err), "inode 12: bad");
	assert_int_equal(tw_error_errnum(err), 0);
	tw_error_destroy(err);
}

static void an_errno_may_come_negative(void **state)
{
	(void)state;
	struct tw_error *err = tw_error_errno(-ENOENT, "%s", "/image");
	assert_int_equal(tw_error_code(err), TW_IO);
	assert_int_equal(tw_error_errnum(err), ENOENT);
	assert_string_equal(tw_error_message(err), "/image: No such file or directory");
	tw_error_destroy(err);
}

static void context_goes_before_the_message(void **state)
{
	(void)state;
	struct tw_error *err = tw_error_create(TW_GAP, "missing");
	err = tw_error_context(err, "xvda/%d", 1);
	err = tw_error_context(err, "trace");
	assert_string_equal(tw_error_message(err), "trace: xvda/1: missing");
	assert_int_equal(tw_error_code(err), TW_GAP);
	tw_error_destroy(err);
}

static void context_of_no_error_is_no_error(void **state)
{
	(void)state;
	assert_null(tw_error_context(NULL, "x"));
	tw_error_destroy(NULL);
}

static void out_of_memory_needs_no_memory(void **state)
{
	(void)state;
	struct tw_error *err = tw_error_context(tw_error_nomem(), "%s", "anything");
	assert_ptr_equal(err, tw_error_nomem());
	assert_int_equal(tw_error_code(err), TW_NOMEM);
	tw_error_destroy(err);
	tw_error_destroy(err);
}

static void exit_statuses_follow_sysexits(void **state)
{
	(void)state;
	static const struct { enum tw_code code; int status; } cases[] = {
		{ TW_NOMEM, EX_OSERR }, { TW_BAD_DATA, EX_DATAERR }, { TW_GAP, EX_DATAERR },
		{ TW_UNSUPPORTED, EX_UNAVAILABLE }, { TW_UNAVAILABLE, EX_UNAVAILABLE },
		{ TW_CONFIG, EX_CONFIG }, { TW_USAGE, EX_USAGE },
	};
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		struct tw_error *err = tw_error_create(cases[i].code, "x");
		assert_int_equal(tw_error_exit_status(err), cases[i].status);
		tw_error_destroy(err);
	}
	struct tw_error *missing = tw_error_errno(ENOENT, "x");
	struct tw_error *broken = tw_error_errno(EIO, "x");
	assert_int_equal(tw_error_exit_status(missing), EX_NOINPUT);
	assert_int_equal(tw_error_exit_status(broken), EX_IOERR);
	tw_error_destroy(missing);
	tw_error_destroy(broken);
}

static struct tw_error *tries(struct tw_error *err, bool *beyond)
{
	TW_TRY(err);
	*beyond = true;
	return NULL;
}

static void try_returns_the_error_and_nothing_else(void **state)
{
	(void)state;
	bool beyond = false;
	fails(tries(tw_error_create(TW_USAGE, "x"), &beyond), TW_USAGE);
	assert_false(beyond);
	ok(tries(NULL, &beyond));
	assert_true(beyond);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(an_error_carries_code_and_message),
		cmocka_unit_test(an_errno_may_come_negative),
		cmocka_unit_test(context_goes_before_the_message),
		cmocka_unit_test(context_of_no_error_is_no_error),
		cmocka_unit_test(out_of_memory_needs_no_memory),
		cmocka_unit_test(exit_statuses_follow_sysexits),
		cmocka_unit_test(try_returns_the_error_and_nothing_else),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
