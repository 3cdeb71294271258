/* SPDX-License-Identifier: BSD-3-Clause */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "link/frame.h"

static void a_frame_survives_the_wire(void **state)
{
	(void)state;
	const struct tw_frame in = {
		.length = 5, .kind = TW_FRAME_EVENT, .type = 3, .sequence = 0x0102030405060708, .body = "hello"
	};
	struct tw_buf buf = TW_BUF_INIT;
	tw_frame_append(&buf, &in);
	tw_frame_append(&buf, &in);
	struct tw_frame out;
	assert_int_equal(tw_frame_parse(buf.data, buf.len, &out), TW_FRAME_HEADER_BYTES + 5);
	assert_int_equal(out.kind, TW_FRAME_EVENT);
	assert_int_equal(out.type, 3);
	assert_true(out.sequence == 0x0102030405060708);
	assert_int_equal(out.length, 5);
	assert_memory_equal(out.body, "hello", 5);
	tw_buf_deinit(&buf);
}

static void the_layout_is_little_endian(void **state)
{
	(void)state;
	const struct tw_frame in = { .length = 1, .kind = TW_FRAME_ACK, .type = 2, .sequence = 7, .body = "x" };
	struct tw_buf buf = TW_BUF_INIT;
	tw_frame_append(&buf, &in);
	assert_int_equal(buf.len, 17);
	assert_memory_equal(buf.data, "\1\0\0\0\4\0\2\0\7\0\0\0\0\0\0\0x", 17);
	tw_buf_deinit(&buf);
}

static void a_frame_in_pieces_waits_for_the_rest(void **state)
{
	(void)state;
	const struct tw_frame in = { .length = 3, .kind = TW_FRAME_EVENT, .sequence = 1, .body = "{ }" };
	struct tw_buf buf = TW_BUF_INIT;
	tw_frame_append(&buf, &in);
	struct tw_frame out;
	for (size_t n = 0; n < buf.len; n++)
		assert_int_equal(tw_frame_parse(buf.data, n, &out), 0);
	assert_int_equal(tw_frame_parse(buf.data, buf.len, &out), buf.len);
	tw_buf_deinit(&buf);
}

/* Every kind from HELLO to the last one is a frame, whatever is around them is none. */
static void only_known_kinds_are_frames(void **state)
{
	(void)state;
	for (unsigned int kind = 0; kind < 65536; kind++) {
		char bytes[TW_FRAME_HEADER_BYTES] = { 0 };
		bytes[4] = (char)kind;
		bytes[5] = (char)(kind >> 8);
		struct tw_frame out;
		bool known = kind >= TW_FRAME_HELLO && kind < TW_FRAME_KIND_END;
		assert_int_equal(tw_frame_parse(bytes, sizeof(bytes), &out), known ? TW_FRAME_HEADER_BYTES : -1);
	}
}

static void a_length_beyond_the_limit_is_refused_from_the_header_alone(void **state)
{
	(void)state;
	struct tw_frame out;
	const uint32_t lengths[] = { TW_FRAME_MAX_BODY, TW_FRAME_MAX_BODY + 1, 0x7fffffff, 0xffffffff };
	for (size_t i = 0; i < 4; i++) {
		char bytes[TW_FRAME_HEADER_BYTES] = { 0 };
		for (int b = 0; b < 4; b++)
			bytes[b] = (char)(lengths[i] >> 8 * b);
		bytes[4] = TW_FRAME_EVENT;
		assert_int_equal(tw_frame_parse(bytes, sizeof(bytes), &out), i ? -1 : 0);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_frame_survives_the_wire),
		cmocka_unit_test(the_layout_is_little_endian),
		cmocka_unit_test(a_frame_in_pieces_waits_for_the_rest),
		cmocka_unit_test(only_known_kinds_are_frames),
		cmocka_unit_test(a_length_beyond_the_limit_is_refused_from_the_header_alone),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
