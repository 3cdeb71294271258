/* SPDX-License-Identifier: BSD-3-Clause */
#include "../check.h"

#include "base/buf.h"

static void appended_bytes_stand_one_after_the_other(void **state)
{
	(void)state;
	struct tw_buf buf = TW_BUF_INIT;
	tw_buf_append(&buf, "ab", 2);
	tw_buf_puts(&buf, "cd");
	tw_buf_printf(&buf, "%d-%s", 42, "e");
	assert_int_equal(buf.len, 8);
	assert_memory_equal(buf.data, "abcd42-e", 8);
	assert_false(buf.failed);
	tw_buf_deinit(&buf);
}

static void it_grows_over_any_size(void **state)
{
	(void)state;
	struct tw_buf buf = TW_BUF_INIT;
	for (unsigned i = 0; i < 100000; i++)
		tw_buf_append(&buf, &(uint8_t){ (uint8_t)(i * 7) }, 1);
	assert_int_equal(buf.len, 100000);
	for (unsigned i = 0; i < 100000; i++)
		assert_int_equal((uint8_t)buf.data[i], (uint8_t)(i * 7));
	tw_buf_deinit(&buf);
}

static void a_long_text_is_printed_whole(void **state)
{
	(void)state;
	struct tw_buf buf = TW_BUF_INIT;
	tw_buf_printf(&buf, "%05000d", 1);
	assert_int_equal(buf.len, 5000);
	assert_int_equal(buf.data[4999], '1');
	assert_int_equal(buf.data[0], '0');
	tw_buf_deinit(&buf);
}

static void reserved_room_does_not_count_until_it_is_used(void **state)
{
	(void)state;
	struct tw_buf buf = TW_BUF_INIT;
	char *at = tw_buf_reserve(&buf, 1000);
	assert_non_null(at);
	assert_int_equal(buf.len, 0);
	memset(at, 'x', 1000);
	buf.len += 1000;
	assert_ptr_equal(tw_buf_reserve(&buf, 1), buf.data + 1000);
	tw_buf_deinit(&buf);
}

static void consumed_bytes_leave_the_front(void **state)
{
	(void)state;
	struct tw_buf buf = TW_BUF_INIT;
	tw_buf_consume(&buf, 0);
	tw_buf_puts(&buf, "abcdef");
	tw_buf_consume(&buf, 4);
	assert_int_equal(buf.len, 2);
	assert_memory_equal(buf.data, "ef", 2);
	tw_buf_consume(&buf, 2);
	assert_int_equal(buf.len, 0);
	tw_buf_deinit(&buf);
}

/* Volatile, or the compiler sees that no such room can be had. */
static void a_growth_that_fails_is_remembered_until_reset(void **state)
{
	(void)state;
	volatile size_t huge = SIZE_MAX / 2 + 2;
	struct tw_buf buf = TW_BUF_INIT;
	tw_buf_puts(&buf, "kept");
	assert_null(tw_buf_reserve(&buf, huge));
	assert_true(buf.failed);
	tw_buf_puts(&buf, "!");
	assert_true(buf.failed);
	assert_memory_equal(buf.data, "kept!", 5);
	tw_buf_reset(&buf);
	assert_false(buf.failed);
	assert_int_equal(buf.len, 0);
	tw_buf_deinit(&buf);
}

static void nothing_appended_to_nothing_is_fine(void **state)
{
	(void)state;
	struct tw_buf buf = TW_BUF_INIT;
	tw_buf_append(&buf, NULL, 0);
	tw_buf_puts(&buf, "");
	assert_false(buf.failed);
	assert_int_equal(buf.len, 0);
	tw_buf_deinit(&buf);
	tw_buf_deinit(&buf);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(appended_bytes_stand_one_after_the_other),
		cmocka_unit_test(it_grows_over_any_size),
		cmocka_unit_test(a_long_text_is_printed_whole),
		cmocka_unit_test(reserved_room_does_not_count_until_it_is_used),
		cmocka_unit_test(consumed_bytes_leave_the_front),
		cmocka_unit_test(a_growth_that_fails_is_remembered_until_reset),
		cmocka_unit_test(nothing_appended_to_nothing_is_fine),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
