/* SPDX-License-Identifier: BSD-3-Clause */
#include "../check.h"

#include "base/pack.h"

static struct tw_unpack reader(const struct tw_buf *buf)
{
	return (struct tw_unpack){ .span = tw_span(buf->data, buf->len) };
}

static void what_was_packed_comes_back_in_order(void **state)
{
	(void)state;
	struct tw_buf buf = TW_BUF_INIT;
	tw_pack32(&buf, 0xdeadbeef);
	tw_pack64(&buf, 0x0123456789abcdef);
	tw_pack_bytes(&buf, "name", 4);
	tw_pack_bytes(&buf, NULL, 0);
	tw_pack32(&buf, 7);
	struct tw_unpack in = reader(&buf);
	assert_int_equal(tw_unpack32(&in), 0xdeadbeef);
	assert_true(tw_unpack64(&in) == 0x0123456789abcdef);
	struct tw_span name = tw_unpack_bytes(&in);
	assert_int_equal(name.len, 4);
	assert_memory_equal(name.data, "name", 4);
	assert_int_equal(tw_unpack_bytes(&in).len, 0);
	assert_int_equal(tw_unpack32(&in), 7);
	assert_false(in.failed);
	assert_int_equal(in.off, buf.len);
	tw_buf_deinit(&buf);
}

static void the_bytes_are_little_endian(void **state)
{
	(void)state;
	struct tw_buf buf = TW_BUF_INIT;
	tw_pack32(&buf, 0x01020304);
	tw_pack_bytes(&buf, "x", 1);
	assert_int_equal(buf.len, 13);
	assert_memory_equal(buf.data, "\4\3\2\1\1\0\0\0\0\0\0\0x", 13);
	tw_buf_deinit(&buf);
}

static void a_read_beyond_the_end_gives_zeroes_and_is_remembered(void **state)
{
	(void)state;
	struct tw_buf buf = TW_BUF_INIT;
	tw_pack32(&buf, 1);
	struct tw_unpack in = reader(&buf);
	assert_true(tw_unpack64(&in) == 0);
	assert_true(in.failed);
	assert_int_equal(in.off, 0);
	tw_buf_deinit(&buf);
}

static void a_length_beyond_the_end_gives_no_bytes(void **state)
{
	(void)state;
	static const uint64_t lengths[] = { 5, UINT32_MAX, UINT64_MAX, (uint64_t)INT64_MAX + 1 };
	for (size_t i = 0; i < sizeof(lengths) / sizeof(*lengths); i++) {
		struct tw_buf buf = TW_BUF_INIT;
		tw_pack64(&buf, lengths[i]);
		tw_buf_append(&buf, "four", 4);
		struct tw_unpack in = reader(&buf);
		struct tw_span bytes = tw_unpack_bytes(&in);
		assert_int_equal(bytes.len, 0);
		assert_true(in.failed);
		tw_buf_deinit(&buf);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_was_packed_comes_back_in_order),
		cmocka_unit_test(the_bytes_are_little_endian),
		cmocka_unit_test(a_read_beyond_the_end_gives_zeroes_and_is_remembered),
		cmocka_unit_test(a_length_beyond_the_end_gives_no_bytes),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
