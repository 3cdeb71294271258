/* SPDX-License-Identifier: BSD-3-Clause */
#include "../check.h"

#include "base/span.h"

#include <stdlib.h>

/* On the heap and exactly as long, so that the sanitizer sees the first byte too far. */
static struct tw_span counting(size_t len)
{
	uint8_t *data = malloc(len ? len : 1);
	for (size_t i = 0; i < len; i++)
		data[i] = (uint8_t)(i + 1);
	return tw_span(data, len);
}

static void drop(struct tw_span span)
{
	free((void *)span.data);
}

static void integers_of_both_byte_orders_are_read_anywhere(void **state)
{
	(void)state;
	struct tw_span s = counting(12);
	assert_int_equal(tw_u8(s, 11), 12);
	assert_int_equal(tw_le16(s, 1), 0x0302);
	assert_int_equal(tw_be16(s, 1), 0x0203);
	assert_int_equal(tw_le32(s, 3), 0x07060504);
	assert_int_equal(tw_be32(s, 3), 0x04050607);
	assert_true(tw_le64(s, 3) == 0x0b0a090807060504);
	assert_true(tw_be64(s, 4) == 0x05060708090a0b0c);
	drop(s);
}

static void a_read_that_crosses_the_end_gives_zero(void **state)
{
	(void)state;
	for (size_t len = 0; len < 9; len++) {
		struct tw_span s = counting(len);
		for (size_t off = 0; off < 20; off++) {
			assert_int_equal(tw_u8(s, off) != 0, off < len);
			assert_int_equal(tw_le16(s, off) != 0, off + 2 <= len);
			assert_int_equal(tw_be32(s, off) != 0, off + 4 <= len);
			assert_int_equal(tw_le64(s, off) != 0, off + 8 <= len);
		}
		drop(s);
	}
}

static void offsets_near_the_largest_number_do_not_wrap(void **state)
{
	(void)state;
	struct tw_span s = counting(8);
	for (size_t back = 0; back < 9; back++) {
		assert_int_equal(tw_u8(s, SIZE_MAX - back), 0);
		assert_int_equal(tw_le16(s, SIZE_MAX - back), 0);
		assert_int_equal(tw_be32(s, SIZE_MAX - back), 0);
		assert_true(tw_le64(s, SIZE_MAX - back) == 0);
		assert_int_equal(tw_span_sub(s, SIZE_MAX - back, SIZE_MAX).len, 0);
	}
	drop(s);
}

static void a_part_is_cut_at_the_end(void **state)
{
	(void)state;
	struct tw_span s = counting(8);
	struct tw_span part = tw_span_sub(s, 6, 100);
	assert_int_equal(part.len, 2);
	assert_int_equal(tw_u8(part, 0), 7);
	assert_int_equal(tw_u8(part, 2), 0);
	assert_int_equal(tw_span_sub(s, 8, 1).len, 0);
	assert_int_equal(tw_span_sub(s, 9, 1).len, 0);
	assert_int_equal(tw_span_sub(s, 2, SIZE_MAX).len, 6);
	drop(s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(integers_of_both_byte_orders_are_read_anywhere),
		cmocka_unit_test(a_read_that_crosses_the_end_gives_zero),
		cmocka_unit_test(offsets_near_the_largest_number_do_not_wrap),
		cmocka_unit_test(a_part_is_cut_at_the_end),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
