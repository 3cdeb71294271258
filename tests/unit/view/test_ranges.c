/* SPDX-License-Identifier: BSD-3-Clause */
#include "changes.h"

#include "view/ranges.h"

enum { BYTES = 400 };

static void mark(bool *bytes, const struct tw_range *r, size_t n, uint64_t size)
{
	for (size_t i = 0; i < n; i++)
		for (uint64_t at = r[i].offset; at < r[i].offset + r[i].length && at < size; at++)
			bytes[at] = true;
}

static void tidy_ranges_are_the_same_bytes(void **state)
{
	(void)state;
	struct dice dice = { 3 };
	for (unsigned round = 0; round < 2000; round++) {
		struct tw_range r[20];
		size_t n = roll(&dice, 20);
		uint64_t size = roll(&dice, BYTES);
		bool want[BYTES] = { false }, got[BYTES] = { false };
		for (size_t i = 0; i < n; i++)
			r[i] = (struct tw_range){ roll(&dice, BYTES - 50), roll(&dice, 40) + 1 };
		mark(want, r, n, size);
		n = tw_ranges_tidy(r, n, size);
		mark(got, r, n, size);
		assert_memory_equal(got, want, sizeof(want));
		for (size_t i = 0; i < n; i++) {
			assert_true(r[i].length > 0 && r[i].offset + r[i].length <= size);
			if (i)
				assert_true(r[i].offset > r[i - 1].offset + r[i - 1].length);
		}
	}
}

static void joined_ranges_cover_the_others(void **state)
{
	(void)state;
	struct tw_range r[1000];
	for (size_t n = 0; n < 1000; n += 7) {
		for (size_t i = 0; i < n; i++)
			r[i] = (struct tw_range){ i * 10, 3 };
		size_t m = tw_ranges_limit(r, n, 100);
		assert_int_equal(m > 100, 0);
		assert_true(n <= 100 ? m == n : m > 50);
		for (size_t i = 0, k = 0; i < n; i++) {
			while (k < m && r[k].offset + r[k].length < i * 10 + 3)
				k++;
			assert_true(k < m && r[k].offset <= i * 10);
		}
	}
}

static void ranges_that_wait_are_bounded(void **state)
{
	struct changes *c = *state;
	struct tw_change *change;
	put(c, ROOT, "a", 11, FILE_MODE);
	ok(tw_changeset_inode(c->set, 11, &change));
	for (uint64_t i = 0; i < 500000; i++) {
		uint64_t at = i * 7919 % 500000; /* each once, in no order */
		ok(tw_changeset_range(change, at * 8192, 4096));
		assert_true(change->nranges <= 65536);
	}
	for (uint64_t at = 0; at < 500000; at += 101) {
		bool there = false;
		for (size_t i = 0; i < change->nranges && !there; i++)
			there = change->ranges[i].offset <= at * 8192 &&
				change->ranges[i].offset + change->ranges[i].length >= at * 8192 + 4096;
		assert_true(there);
	}
}

static void scatter(struct changes *c, unsigned from, unsigned to)
{
	struct tw_change *change;
	for (unsigned i = from; i < to; i++) {
		ok(tw_changeset_inode(c->set, 11 + i % 900, &change));
		ok(tw_changeset_range(change, (uint64_t)(i * 7919u % 1000003u) * 8192, 4096));
	}
}

static struct tw_buf saved(const struct changes *c)
{
	struct tw_buf out = TW_BUF_INIT;
	tw_changeset_save_ranges(c->set, &out);
	assert_false(out.failed);
	return out;
}

/* All files together, too; and what is saved and loaded goes on just the same. */
static void ranges_of_all_files_are_bounded(void **state)
{
	enum { MOST = 1 << 20, AT = 1500000 };
	struct changes *c = *state, other = { 0 };
	for (uint32_t ino = 11; ino < 911; ino++)
		put(c, ROOT, "a", ino, FILE_MODE);
	scatter(c, 0, AT);
	struct tw_buf half = saved(c);
	assert_true(half.len < MOST * 16ul + 900 * 12 + 4);
	ok(tw_changeset_create(c->view, keep_event, c, &other.set));
	struct tw_unpack in = { .span = tw_span(half.data, half.len) };
	ok(tw_changeset_load_ranges(other.set, &in));
	scatter(c, AT, 2 * AT);
	scatter(&other, AT, 2 * AT);
	struct tw_buf one = saved(c), two = saved(&other);
	assert_int_equal(one.len, two.len);
	assert_memory_equal(one.data, two.data, one.len);
	tw_changeset_destroy(other.set);
	tw_buf_deinit(&half);
	tw_buf_deinit(&one);
	tw_buf_deinit(&two);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(tidy_ranges_are_the_same_bytes),
		cmocka_unit_test(joined_ranges_cover_the_others),
		CHANGE_TEST(ranges_that_wait_are_bounded),
		CHANGE_TEST(ranges_of_all_files_are_bounded),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
