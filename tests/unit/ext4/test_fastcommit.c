/* SPDX-License-Identifier: BSD-3-Clause */
#include "fastlog.h"

#include <stdlib.h>

static struct ext4_fc *new_fc(void)
{
	struct ext4_fc *fc;
	ok(ext4_fc_create(FAST_LEN, FAST_BLOCK, FAST_INODE, &fc));
	assert_int_equal(ext4_fc_blocks(fc), FAST_LEN);
	return fc;
}

static void put(struct ext4_fc *fc, const struct fastlog *l, uint32_t from, uint32_t to)
{
	for (; from < to; from++)
		ok(ext4_fc_write(fc, l->tid, from, l->blocks[from]));
}

static bool next(struct ext4_fc *fc, uint32_t tid, const struct ext4_fc_op **ops, size_t *n)
{
	bool ready;
	ok(ext4_fc_next(fc, tid, &ready, ops, n));
	return ready;
}

static bool nothing(struct ext4_fc *fc, uint32_t tid)
{
	const struct ext4_fc_op *ops;
	size_t n;
	return !next(fc, tid, &ops, &n);
}

static bool named(const struct ext4_fc_op *op, enum ext4_fc_tag tag, uint32_t dir, uint32_t ino,
	const char *name)
{
	return op->tag == tag && op->dir == dir && op->ino == ino && op->bytes.len == strlen(name) &&
		!memcmp(op->bytes.data, name, op->bytes.len);
}

static void every_tag_is_read(void **state)
{
	(void)state;
	for (unsigned old = 0; old < 2; old++) {
		struct fastlog l = { .tid = 7, .old = old };
		struct ext4_fc *fc = new_fc();
		const struct ext4_fc_op *ops;
		uint8_t raw[160];
		size_t n;
		memset(raw, 0x33, sizeof(raw));
		fast_head(&l, 0);
		fast_inode(&l, 12, raw, sizeof(raw));
		fast_name(&l, EXT4_FC_CREAT, 2, 12, "new");
		fast_name(&l, EXT4_FC_LINK, 2, 13, "to");
		fast_name(&l, EXT4_FC_UNLINK, 11, 13, "from");
		fast_add(&l, 14, 5, 0x123456789a, 32768, false);
		fast_add(&l, 14, 40000, 77, 9, true);
		fast_del(&l, 15, 3, 0xfffffff0);
		fast_tail(&l);
		assert_true(nothing(fc, 7));
		put(fc, &l, 0, l.at);
		assert_true(next(fc, 7, &ops, &n));
		assert_int_equal(n, 7);
		assert_int_equal(ops[0].tag, EXT4_FC_INODE);
		assert_int_equal(ops[0].ino, 12);
		assert_int_equal(ops[0].bytes.len, sizeof(raw));
		assert_memory_equal(ops[0].bytes.data, raw, sizeof(raw));
		assert_true(named(&ops[1], EXT4_FC_CREAT, 2, 12, "new"));
		assert_true(named(&ops[2], EXT4_FC_LINK, 2, 13, "to"));
		assert_true(named(&ops[3], EXT4_FC_UNLINK, 11, 13, "from"));
		assert_int_equal(ops[4].tag, EXT4_FC_ADD_RANGE);
		assert_int_equal(ops[4].ino, 14);
		assert_int_equal(ops[4].lblk, 5);
		assert_int_equal(ops[4].count, 32768);
		assert_true(ops[4].block == 0x123456789a && !ops[4].unwritten);
		assert_int_equal(ops[5].count, 9);
		assert_true(ops[5].unwritten);
		assert_int_equal(ops[6].tag, EXT4_FC_DEL_RANGE);
		assert_int_equal(ops[6].lblk, 3);
		assert_int_equal(ops[6].count, 0xfffffff0);
		ext4_fc_release(fc);
		assert_int_equal(ext4_fc_position(fc), 1);
		assert_true(nothing(fc, 7));
		ext4_fc_destroy(fc);
	}
}

/* Three fast commits, the second one of several blocks. */
static void fill(struct fastlog *l)
{
	uint8_t raw[FAST_INODE];
	memset(raw, 0x44, sizeof(raw));
	fast_head(l, 0);
	fast_name(l, EXT4_FC_CREAT, 2, 12, "one");
	fast_tail(l);
	for (uint32_t i = 0; i < 10; i++)
		fast_inode(l, 20 + i, raw, sizeof(raw));
	fast_tail(l);
	fast_del(l, 12, 0, 1);
	fast_tail(l);
	assert_true(l->at >= 5 && l->at < FAST_LEN);
}

static unsigned drain(struct ext4_fc *fc, uint32_t tid, size_t *n)
{
	const struct ext4_fc_op *ops;
	unsigned commits = 0;
	for (; next(fc, tid, &ops, n); commits++)
		ext4_fc_release(fc);
	return commits;
}

static void one_comes_behind_the_other_until_the_transaction_ends(void **state)
{
	(void)state;
	struct fastlog l = { .tid = 7 };
	struct ext4_fc *fc = new_fc();
	const struct ext4_fc_op *ops;
	size_t n;
	fill(&l);
	put(fc, &l, 0, l.at);
	assert_true(next(fc, 7, &ops, &n));
	assert_int_equal(n, 1);
	ext4_fc_release(fc);
	assert_true(next(fc, 7, &ops, &n));
	assert_int_equal(n, 10);
	ext4_fc_release(fc);
	assert_true(next(fc, 7, &ops, &n));
	assert_int_equal(n, 1);
	ext4_fc_release(fc);
	assert_int_equal(ext4_fc_position(fc), l.at);
	/* The next transaction writes over it. */
	struct fastlog m = { .tid = 8 };
	fast_head(&m, 0);
	fast_name(&m, EXT4_FC_UNLINK, 2, 12, "one");
	fast_tail(&m);
	put(fc, &m, 0, m.at);
	assert_int_equal(drain(fc, 8, &n), 1);
	ext4_fc_destroy(fc);
}

static void blocks_may_come_in_any_order(void **state)
{
	(void)state;
	struct dice dice = { 3 };
	for (unsigned round = 0; round < 200; round++) {
		struct fastlog l = { .tid = 9, .old = round & 1 };
		struct ext4_fc *fc = new_fc();
		uint32_t order[FAST_LEN];
		unsigned commits = 0;
		size_t n;
		fill(&l);
		for (uint32_t i = 0; i < l.at; i++)
			order[i] = i;
		for (uint32_t i = l.at - 1; i; i--) {
			uint32_t k = roll(&dice, i + 1), swap = order[i];
			order[i] = order[k];
			order[k] = swap;
		}
		for (uint32_t i = 0; i < l.at; i++) {
			ok(ext4_fc_write(fc, 9, order[i], l.blocks[order[i]]));
			commits += drain(fc, 9, &n);
		}
		assert_int_equal(commits, 3);
		ext4_fc_destroy(fc);
	}
}

static void a_flipped_bit_ends_it_until_the_block_is_written_again(void **state)
{
	(void)state;
	for (size_t byte = 0; byte < 40; byte++) {
		struct fastlog l = { .tid = 7 };
		struct ext4_fc *fc = new_fc();
		size_t n;
		fast_head(&l, 0);
		fast_name(&l, EXT4_FC_CREAT, 2, 12, "one");
		fast_tail(&l);
		l.blocks[0][byte] ^= 4;
		put(fc, &l, 0, 1);
		if (byte < 39)
			assert_int_equal(drain(fc, 7, &n), 0);
		else
			assert_int_equal(drain(fc, 7, &n), 1);
		l.blocks[0][byte] ^= 4;
		put(fc, &l, 0, 1);
		assert_int_equal(drain(fc, 7, &n), byte < 39 ? 1 : 0);
		ext4_fc_destroy(fc);
	}
}

static void another_transactions_blocks_do_not_count(void **state)
{
	(void)state;
	struct fastlog l = { .tid = 7 }, m = { .tid = 8 };
	struct ext4_fc *fc = new_fc();
	size_t n;
	fill(&l);
	put(fc, &l, 0, 1);
	/* Written while 8 is under way, and still says 7. */
	ok(ext4_fc_write(fc, 8, 0, l.blocks[0]));
	assert_int_equal(drain(fc, 8, &n), 0);
	/* Without a head at its beginning. */
	fast_name(&m, EXT4_FC_CREAT, 2, 12, "one");
	fast_tail(&m);
	put(fc, &m, 0, 1);
	assert_int_equal(drain(fc, 8, &n), 0);
	m = (struct fastlog){ .tid = 8 };
	fast_head(&m, 1); /* a feature that nobody knows */
	fast_tail(&m);
	put(fc, &m, 0, 1);
	assert_int_equal(drain(fc, 8, &n), 0);
	m = (struct fastlog){ .tid = 8 };
	fast_head(&m, 0);
	fast_tail(&m);
	put(fc, &m, 0, 1);
	assert_int_equal(drain(fc, 8, &n), 1);
	ext4_fc_destroy(fc);
}

/* Whatever the checksum says. */
static void head_and_tail_name_the_same_transaction(void **state)
{
	(void)state;
	for (uint32_t head = 7; head <= 8; head++) {
		for (uint32_t tail = 7; tail <= 8; tail++) {
			struct fastlog l = { .tid = head };
			struct ext4_fc *fc = new_fc();
			size_t n;
			fast_head(&l, 0);
			fast_name(&l, EXT4_FC_CREAT, 2, 12, "one");
			l.tid = tail;
			fast_tail(&l);
			ok(ext4_fc_write(fc, 8, 0, l.blocks[0]));
			assert_int_equal(drain(fc, 8, &n), head == 8 && tail == 8);
			ext4_fc_destroy(fc);
		}
	}
}

static void count(uint32_t index, const uint8_t *data, void *arg)
{
	(void)index, (void)data;
	++*(unsigned *)arg;
}

/* The guest's cache may write it once more. */
static void a_block_of_one_that_was_taken_is_not_kept(void **state)
{
	(void)state;
	struct fastlog l = { .tid = 7 };
	struct ext4_fc *fc = new_fc();
	unsigned pending = 0;
	size_t n;
	fill(&l);
	put(fc, &l, 0, 1);
	assert_int_equal(drain(fc, 7, &n), 1);
	put(fc, &l, 0, 1);
	ext4_fc_pending(fc, count, &pending);
	assert_int_equal(pending, 0);
	put(fc, &l, 1, l.at);
	assert_int_equal(drain(fc, 7, &n), 2);
	ext4_fc_destroy(fc);
}

static void lengths_that_cannot_be_are_refused(void **state)
{
	(void)state;
	static const struct { uint32_t tag; size_t len; bool holds; } cases[] = {
		{ EXT4_FC_ADD_RANGE, 16, true }, { EXT4_FC_ADD_RANGE, 15, false },
		{ EXT4_FC_ADD_RANGE, 17, false }, { EXT4_FC_DEL_RANGE, 12, true },
		{ EXT4_FC_DEL_RANGE, 0, false }, { EXT4_FC_CREAT, 8, false }, { EXT4_FC_CREAT, 9, true },
		{ EXT4_FC_LINK, 263, true }, { EXT4_FC_UNLINK, 264, false }, { EXT4_FC_INODE, 131, false },
		{ EXT4_FC_INODE, 132, true }, { EXT4_FC_INODE, 4 + FAST_INODE, true },
		{ EXT4_FC_INODE, 5 + FAST_INODE, false }, { EXT4_FC_PAD, 0, true },
		{ EXT4_FC_HEAD, 7, false }, { 0, 8, false }, { 10, 8, false }, { 0xffff, 8, false },
	};
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		struct fastlog l = { .tid = 7 };
		struct ext4_fc *fc = new_fc();
		uint8_t value[512] = { 0 };
		size_t n;
		fast_head(&l, 0);
		fast_tag(&l, cases[i].tag, value, cases[i].len);
		fast_tail(&l);
		put(fc, &l, 0, l.at);
		assert_int_equal(drain(fc, 7, &n), cases[i].holds);
		ext4_fc_destroy(fc);
	}
}

static void a_tag_beyond_its_block_is_refused(void **state)
{
	(void)state;
	for (uint32_t len = FAST_BLOCK - 16; len < FAST_BLOCK + 8; len++) {
		struct fastlog l = { .tid = 7 };
		struct ext4_fc *fc = new_fc();
		size_t n;
		fast_head(&l, 0);
		fast_le16(l.blocks[0] + 12, EXT4_FC_PAD);
		fast_le16(l.blocks[0] + 14, len);
		put(fc, &l, 0, FAST_LEN);
		assert_int_equal(drain(fc, 7, &n), 0);
		ext4_fc_destroy(fc);
	}
}

static void one_that_was_given_up_is_left_to_the_commit(void **state)
{
	(void)state;
	struct fastlog l = { .tid = 7 };
	struct ext4_fc *fc = new_fc();
	size_t n;
	fill(&l);
	put(fc, &l, 0, 1);
	assert_int_equal(drain(fc, 7, &n), 1);
	ext4_fc_give_up(fc);
	assert_int_equal(ext4_fc_position(fc), UINT32_MAX);
	put(fc, &l, 0, l.at);
	assert_int_equal(drain(fc, 7, &n), 0);
	l.tid = 8;
	l.at = 0;
	fast_head(&l, 0);
	fast_tail(&l);
	put(fc, &l, 0, l.at);
	assert_int_equal(drain(fc, 8, &n), 1);
	ext4_fc_destroy(fc);
}

static void carry(uint32_t index, const uint8_t *data, void *arg)
{
	ok(ext4_fc_write(arg, 7, index, data));
}

static void what_is_pending_can_be_carried_over(void **state)
{
	(void)state;
	struct fastlog l = { .tid = 7 };
	struct ext4_fc *fc = new_fc(), *other = new_fc();
	size_t n;
	fill(&l);
	put(fc, &l, 0, 2);
	assert_int_equal(drain(fc, 7, &n), 1);
	ext4_fc_set_position(other, 7, ext4_fc_position(fc));
	ext4_fc_pending(fc, carry, other);
	put(other, &l, 2, l.at);
	assert_int_equal(drain(other, 7, &n), 2);
	ext4_fc_destroy(fc);
	ext4_fc_destroy(other);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_tag_is_read),
		cmocka_unit_test(one_comes_behind_the_other_until_the_transaction_ends),
		cmocka_unit_test(blocks_may_come_in_any_order),
		cmocka_unit_test(a_flipped_bit_ends_it_until_the_block_is_written_again),
		cmocka_unit_test(another_transactions_blocks_do_not_count),
		cmocka_unit_test(head_and_tail_name_the_same_transaction),
		cmocka_unit_test(a_block_of_one_that_was_taken_is_not_kept),
		cmocka_unit_test(lengths_that_cannot_be_are_refused),
		cmocka_unit_test(a_tag_beyond_its_block_is_refused),
		cmocka_unit_test(one_that_was_given_up_is_left_to_the_commit),
		cmocka_unit_test(what_is_pending_can_be_carried_over),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
