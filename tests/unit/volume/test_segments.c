/* SPDX-License-Identifier: BSD-3-Clause */
#include "../check.h"

#include "volume/segments.h"

#include <stdlib.h>

enum { DISK = 1 << 16, UNIT = 16 };

/* Two linear parts, three stripes of four units each in two rows, and one more linear part. */
static void make(struct tw_segments *s)
{
	const uint64_t linear[] = {100 * UNIT, 50 * UNIT, 300 * UNIT};
	const uint64_t stripes[] = {200 * UNIT, 150 * UNIT, 250 * UNIT};
	*s = (struct tw_segments){0};
	ok(tw_segments_add(s, 10 * UNIT, 1, 0, &linear[0]));
	ok(tw_segments_add(s, 5 * UNIT, 1, 0, &linear[1]));
	ok(tw_segments_add(s, 24 * UNIT, 3, 4 * UNIT, stripes));
	ok(tw_segments_add(s, 7 * UNIT, 1, 0, &linear[2]));
	ok(tw_segments_finish(s, DISK));
	assert_int_equal(s->bytes, 46 * UNIT);
}

/* The same, unit by unit, worked out by hand. */
static const uint16_t where[46] = {100, 101, 102, 103, 104, 105, 106, 107, 108, 109, 50, 51, 52, 53, 54,
	200, 201, 202, 203, 150, 151, 152, 153, 250, 251, 252, 253,
	204, 205, 206, 207, 154, 155, 156, 157, 254, 255, 256, 257,
	300, 301, 302, 303, 304, 305, 306};

static struct tw_error *read_disk(void *arg, uint64_t offset, void *buf, size_t len)
{
	memcpy(buf, (uint8_t *)arg + offset, len);
	return NULL;
}

static void a_byte_is_read_from_where_it_lies(void **state)
{
	struct tw_segments s;
	uint8_t *disk = malloc(DISK), *all = malloc(46 * UNIT);
	const struct tw_source source = {.read = read_disk, .arg = disk, .bytes = DISK};
	(void)state;
	for (unsigned i = 0; i < DISK; i++)
		disk[i] = (uint8_t)(i / UNIT ^ i);
	make(&s);
	ok(tw_segments_read(&s, &source, 0, all, 46 * UNIT));
	for (unsigned i = 0; i < 46 * UNIT; i++)
		assert_int_equal(all[i], disk[where[i / UNIT] * UNIT + i % UNIT]);
	for (unsigned from = 0; from < 46 * UNIT; from += 7) {
		uint8_t part[5];
		ok(tw_segments_read(&s, &source, from, part, from + 5 <= 46 * UNIT ? 5 : 1));
		assert_int_equal(part[0], all[from]);
	}
	fails(tw_segments_read(&s, &source, 46 * UNIT - 1, all, 2), TW_BAD_DATA);
	tw_segments_deinit(&s);
	free(disk);
	free(all);
}

/* Every range of the disk gives each of its bytes that are the volume's once, and in the disk's order. */
static void a_write_is_split_into_what_is_the_volumes(void **state)
{
	struct tw_segments s;
	(void)state;
	make(&s);
	for (uint64_t from = 40 * UNIT; from < 310 * UNIT; from += 9)
		for (uint64_t len = 1; len < 280 * UNIT; len += 131) {
			struct tw_pieces pieces = tw_pieces(&s, from, len);
			struct tw_piece piece;
			uint64_t at = from, bytes = 0, expected = 0;
			for (unsigned i = 0; i < 46 * UNIT; i++) {
				uint64_t disk = where[i / UNIT] * (uint64_t)UNIT + i % UNIT;
				expected += disk >= from && disk < from + len;
			}
			while (tw_pieces_next(&pieces, &piece)) {
				assert_true(piece.disk >= at && piece.bytes);
				at = piece.disk + piece.bytes;
				assert_true(at <= from + len);
				bytes += piece.bytes;
				for (uint64_t k = 0; k < piece.bytes; k++) {
					uint64_t o = piece.offset + k;
					assert_int_equal(piece.disk + k,
						where[o / UNIT] * UNIT + o % UNIT);
				}
			}
			assert_int_equal(bytes, expected);
		}
	tw_segments_deinit(&s);
}

static void linear_parts_that_meet_are_one(void **state)
{
	struct tw_segments s = {0};
	const uint64_t starts[] = {4096, 8192};
	struct tw_piece piece;
	(void)state;
	ok(tw_segments_add(&s, 4096, 1, 0, &starts[0]));
	ok(tw_segments_add(&s, 1024, 1, 0, &starts[1]));
	ok(tw_segments_finish(&s, DISK));
	assert_int_equal(s.n, 1);
	struct tw_pieces pieces = tw_pieces(&s, 0, DISK);
	assert_true(tw_pieces_next(&pieces, &piece));
	assert_int_equal(piece.disk, 4096);
	assert_int_equal(piece.offset, 0);
	assert_int_equal(piece.bytes, 5120);
	assert_false(tw_pieces_next(&pieces, &piece));
	tw_segments_deinit(&s);
}

static void what_cannot_be_is_refused(void **state)
{
	struct tw_segments s = {0};
	const uint64_t apart[] = {0, 8192}, close[] = {0, 4095}, far[] = {DISK - 100, 0};
	(void)state;
	fails(tw_segments_add(&s, 100, 0, 0, apart), TW_BAD_DATA);
	fails(tw_segments_add(&s, 0, 1, 0, apart), TW_BAD_DATA);
	fails(tw_segments_add(&s, 8193, 2, 4096, apart), TW_BAD_DATA);
	fails(tw_segments_add(&s, 8192, 2, UINT64_MAX / 2 + 1, apart), TW_BAD_DATA);
	fails(tw_segments_add(&s, 8192, TW_SEGMENTS_MAX_AREAS + 1, 1, apart), TW_BAD_DATA);
	ok(tw_segments_add(&s, 8192, 2, 4096, close));
	fails(tw_segments_finish(&s, DISK), TW_BAD_DATA);
	tw_segments_deinit(&s);
	ok(tw_segments_add(&s, 101, 1, 0, far));
	fails(tw_segments_finish(&s, DISK), TW_BAD_DATA);
	tw_segments_deinit(&s);
	ok(tw_segments_add(&s, 8192, 2, 4096, apart));
	fails(tw_segments_add(&s, UINT64_MAX - 100, 1, 0, apart), TW_BAD_DATA);
	ok(tw_segments_finish(&s, DISK));
	tw_segments_deinit(&s);
}

struct ranges {
	uint64_t offset[64], bytes[64];
	unsigned n;
};

static struct tw_error *take_range(uint64_t offset, uint64_t bytes, void *arg)
{
	struct ranges *r = arg;
	assert_true(r->n < 64);
	r->offset[r->n] = offset;
	r->bytes[r->n++] = bytes;
	return NULL;
}

static void many_stripes_are_told_as_whole_rows(void **state)
{
	struct tw_segments s = {0};
	struct ranges few = {.n = 0}, many = {.n = 0};
	const uint64_t starts[] = {0, 32768};
	(void)state;
	ok(tw_segments_add(&s, 65536, 2, 512, starts));
	ok(tw_segments_finish(&s, 65536));
	assert_int_equal(tw_segments_count_pieces(&s, 512, 8192), 16);
	ok(tw_segments_each_range(&s, 512, 8192, 16, take_range, &few));
	assert_int_equal(few.n, 16);
	assert_int_equal(few.offset[1], 2048);
	ok(tw_segments_each_range(&s, 512, 8192, 15, take_range, &many));
	assert_int_equal(many.n, 1);
	assert_int_equal(many.offset[0], 1024);
	assert_int_equal(many.bytes[0], 16384);
	tw_segments_deinit(&s);
}

static void a_copy_and_a_saved_one_are_equal(void **state)
{
	struct tw_segments s, copy, loaded = {0}, damaged = {0};
	struct tw_buf out = TW_BUF_INIT;
	(void)state;
	make(&s);
	ok(tw_segments_copy(&copy, &s));
	assert_true(tw_segments_equal(&s, &copy));
	assert_true(tw_segments_overlap(&s, &copy));
	tw_segments_save(&s, &out);
	struct tw_unpack in = {.span = tw_span(out.data, out.len)};
	ok(tw_segments_load(&loaded, &in, DISK));
	assert_true(tw_segments_equal(&s, &loaded));
	assert_memory_equal(s.areas, loaded.areas, s.nstarts * sizeof(*s.areas));
	struct tw_unpack cut = {.span = tw_span(out.data, out.len - 1)};
	fails(tw_segments_load(&damaged, &cut, DISK), TW_BAD_DATA);
	tw_segments_deinit(&damaged);
	copy.starts[1] += 512;
	assert_false(tw_segments_equal(&s, &copy));
	tw_segments_deinit(&s);
	tw_segments_deinit(&copy);
	tw_segments_deinit(&loaded);
	tw_buf_deinit(&out);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_byte_is_read_from_where_it_lies),
		cmocka_unit_test(a_write_is_split_into_what_is_the_volumes),
		cmocka_unit_test(linear_parts_that_meet_are_one),
		cmocka_unit_test(what_cannot_be_is_refused),
		cmocka_unit_test(many_stripes_are_told_as_whole_rows),
		cmocka_unit_test(a_copy_and_a_saved_one_are_equal),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
