/* SPDX-License-Identifier: BSD-3-Clause */
#include "journal_checks.h"

static void a_transaction_is_there_with_its_commit_block(void **state)
{
	(void)state;
	for (size_t f = 0; f < NFEATURES; f++) {
		struct journal *l = log_new(all_features[f], 1, 10);
		uint32_t begin = l->pos;
		log_blocks(l, three, 3);
		uint32_t commit = log_commit(l);
		log_write(l, begin, commit);
		assert_true(tw_jbd2_underway(l->j));
		nothing_ready(l);
		log_write(l, commit, l->pos);
		is_next(l, false, 10, three, 3);
		nothing_ready(l);
		assert_false(tw_jbd2_underway(l->j));
		log_free(l);
	}
}

static void block_numbers_beyond_32_bits_are_followed(void **state)
{
	(void)state;
	static const struct log_item wide[] = { { 0x123456789a, 1, false }, { 1ull << 47, 2, false } };
	static const uint32_t with[] = { JBD2_64BIT_F, JBD2_64BIT_F | JBD2_V2_F,
		JBD2_64BIT_F | JBD2_V3_F };
	for (size_t f = 0; f < 3; f++) {
		struct journal *l = log_new(with[f], 1, 10);
		uint32_t begin = l->pos;
		log_blocks(l, wide, 2);
		log_commit(l);
		log_write(l, begin, l->pos);
		is_next(l, false, 10, wide, 2);
		log_free(l);
	}
}

static void several_descriptors_make_one_transaction(void **state)
{
	(void)state;
	static const struct log_item both[] = { { 42, 9, false }, { 100, 1, false }, { 7, 2, true },
		{ 65536, 3, false } };
	struct journal *l = log_new(JBD2_V3_F, 1, 10);
	uint32_t begin = l->pos;
	log_blocks(l, one, 1);
	log_blocks(l, three, 3);
	log_commit(l);
	log_write(l, begin, l->pos);
	is_next(l, false, 10, both, 4);
	log_free(l);
}

static void transactions_come_in_order_over_the_end_of_the_log(void **state)
{
	(void)state;
	for (size_t f = 0; f < NFEATURES; f++) {
		struct journal *l = log_new(all_features[f], 1, UINT32_MAX - 20);
		for (unsigned i = 0; i < 100; i++) {
			struct log_item items[4];
			size_t n = 1 + i % 4;
			for (size_t k = 0; k < n; k++)
				items[k] = (struct log_item){ i * 4 + k, (uint8_t)(i + k), k == 2 };
			uint32_t begin = l->pos, sequence = l->sequence;
			log_blocks(l, items, n);
			log_commit(l);
			log_write(l, begin, l->pos);
			is_next(l, false, sequence, items, n);
			nothing_ready(l);
		}
		log_free(l);
	}
}

static void several_transactions_may_wait(void **state)
{
	(void)state;
	struct journal *l = log_new(JBD2_V3_F, 1, 10);
	uint32_t begin = l->pos;
	log_blocks(l, one, 1);
	log_commit(l);
	log_blocks(l, three, 3);
	log_commit(l);
	log_write(l, begin, l->pos);
	is_next(l, false, 10, one, 1);
	is_next(l, false, 11, three, 3);
	nothing_ready(l);
	log_free(l);
}

static void revoked_blocks_are_listed(void **state)
{
	(void)state;
	for (size_t f = 0; f < NFEATURES; f++) {
		bool wide = all_features[f] & JBD2_64BIT_F;
		const uint64_t revoked[] = { 5, wide ? 0x500000001 : 6, 7 };
		struct journal *l = log_new(all_features[f], 1, 10);
		uint32_t begin = l->pos;
		log_revoke(l, revoked, 3);
		log_blocks(l, one, 1);
		log_commit(l);
		log_write(l, begin, l->pos);
		struct tw_jbd2_transaction txn;
		assert_true(next(l, false, &txn));
		assert_int_equal(txn.nblocks, 1);
		assert_int_equal(txn.nrevoked, 3);
		for (size_t i = 0; i < 3; i++)
			assert_true(txn.revoked[i] == revoked[i]);
		tw_jbd2_release(l->j, &txn);
		log_free(l);
	}
}

static void a_transaction_may_be_empty(void **state)
{
	(void)state;
	struct journal *l = log_new(JBD2_V3_F, 1, 10);
	uint32_t begin = l->pos;
	log_commit(l);
	log_write(l, begin, l->pos);
	is_next(l, false, 10, NULL, 0);
	log_free(l);
}

static void fast_commits_lie_behind_the_log(void **state)
{
	(void)state;
	struct journal *l = log_new(JBD2_V3_F | JBD2_FAST_F, 20, 10);
	uint32_t index;
	assert_int_equal(tw_jbd2_fast_blocks(l->j), LOG_FAST_BLOCKS - 1);
	assert_false(tw_jbd2_fast_place(l->j, 21, &index));
	assert_false(tw_jbd2_fast_place(l->j, 22, &index));
	assert_true(tw_jbd2_fast_place(l->j, 23, &index));
	assert_int_equal(index, 0);
	assert_true(tw_jbd2_fast_place(l->j, LOG_LEN - 1, &index));
	assert_int_equal(index, LOG_FAST_BLOCKS - 2);
	assert_false(tw_jbd2_fast_place(l->j, LOG_LEN, &index));
	/* They are no business of the log's: this one wraps before them. */
	for (uint32_t at = 22; at < LOG_LEN; at++)
		ok(tw_jbd2_write(l->j, at, l->blocks[at]));
	log_blocks(l, three, 3);
	log_commit(l);
	assert_int_equal(l->pos, 4);
	log_write(l, 20, l->pos);
	is_next(l, false, 10, three, 3);
	/* A clean unmount clears the feature, the next mount sets it again. */
	l->features = JBD2_V3_F;
	log_superblock(l, 0, 11);
	ok(tw_jbd2_write(l->j, 0, l->blocks[0]));
	assert_int_equal(tw_jbd2_fast_blocks(l->j), 0);
	assert_false(tw_jbd2_fast_place(l->j, 23, &index));
	l->features |= JBD2_FAST_F;
	log_superblock(l, 20, 11);
	ok(tw_jbd2_write(l->j, 0, l->blocks[0]));
	l->pos = 20;
	log_blocks(l, three, 3);
	log_commit(l);
	log_write(l, 20, l->pos);
	is_next(l, false, 11, three, 3);
	log_free(l);
}

/* ext4 gives up at an error: the superblock says so, and what was begun is never committed. */
static void an_aborted_journal_keeps_what_was_committed(void **state)
{
	(void)state;
	struct journal *l = log_new(JBD2_V3_F, 1, 10);
	log_blocks(l, one, 1);
	log_commit(l);
	uint32_t torn = l->pos;
	log_blocks(l, three, 3);
	log_write(l, 1, torn + 2);
	is_next(l, false, 10, one, 1);
	be32(l->blocks[0] + 0x20, (uint32_t)-5);
	ok(tw_jbd2_write(l->j, 0, l->blocks[0]));
	nothing_ready(l);
	assert_int_equal(tw_jbd2_position(l->j).sequence, 11);
	/* A recovery forgets the torn one, and goes on with a later number. */
	log_superblock(l, 1, 12);
	ok(tw_jbd2_write(l->j, 0, l->blocks[0]));
	assert_false(tw_jbd2_underway(l->j));
	l->pos = 1;
	l->sequence = 12;
	log_blocks(l, three, 3);
	log_commit(l);
	log_write(l, 1, l->pos);
	is_next(l, false, 12, three, 3);
	log_free(l);
}

/* The log is begun again at its first block, over what it held: a transaction with another number. */
static void next_round(struct journal *l)
{
	l->sequence = 900;
	l->pos = 1;
	log_superblock(l, 1, 900);
	tw_jbd2_destroy(l->j);
	log_open(l);
	log_blocks(l, one, 1);
	log_commit(l);
}

/* Old content of the log behind the commit block, with its own valid checksums. */
static void old_transactions_in_the_log_do_not_count(void **state)
{
	(void)state;
	struct journal *l = log_new(JBD2_V3_F, 1, 10);
	log_blocks(l, three, 3);
	log_commit(l);
	log_blocks(l, one, 1);
	log_commit(l);
	next_round(l);
	log_write(l, 1, l->pos);
	is_next(l, false, 900, one, 1);
	struct tw_jbd2_transaction txn;
	assert_false(next(l, true, &txn));
	log_free(l);
}

/* Without checksums, nothing but its number tells it from the one that was to come. */
static void an_older_transaction_where_the_next_would_be_is_the_end_of_the_log(void **state)
{
	(void)state;
	for (size_t f = 0; f < NFEATURES; f++) {
		struct tw_jbd2_transaction txn;
		struct journal *l = log_new(all_features[f], 1, 10);
		log_blocks(l, one, 1);
		uint32_t second = log_commit(l) + 1;
		log_blocks(l, three, 3);
		log_commit(l);
		next_round(l);
		assert_int_equal(l->pos, second);
		is_next(l, true, 900, one, 1);
		assert_false(next(l, true, &txn));
		assert_int_equal(tw_jbd2_position(l->j).head, second);
		log_free(l);
	}
}

static void a_later_commit_without_this_transaction_is_a_gap(void **state)
{
	(void)state;
	struct journal *l = log_new(JBD2_V3_F, 1, 10);
	uint32_t begin = l->pos;
	log_blocks(l, one, 1);
	log_commit(l);
	log_write(l, begin, l->pos);
	is_next(l, false, 10, one, 1);
	log_blocks(l, three, 3); /* not seen */
	log_commit(l);
	begin = l->pos;
	log_blocks(l, one, 1);
	log_commit(l);
	log_write(l, begin, l->pos);
	bool ready;
	struct tw_jbd2_transaction txn;
	fails(tw_jbd2_next(l->j, false, &ready, &txn), TW_GAP);
	assert_false(ready);
	log_free(l);
}

static void an_empty_journal_waits_for_its_superblock(void **state)
{
	(void)state;
	struct journal *l = log_new(JBD2_V3_F, 0, 10);
	assert_int_equal(tw_jbd2_position(l->j).head, 0);
	l->pos = 5;
	log_blocks(l, one, 1);
	log_commit(l);
	log_write(l, 5, l->pos);
	nothing_ready(l);
	log_superblock(l, 5, 10);
	ok(tw_jbd2_write(l->j, 0, l->blocks[0]));
	is_next(l, false, 10, one, 1);
	log_free(l);
}

static void a_log_may_be_written_before_its_superblock(void **state)
{
	(void)state;
	struct journal *l = log_new(JBD2_V3_F, 0, 10);
	l->pos = 1;
	log_blocks(l, three, 3);
	log_commit(l);
	log_write(l, 1, l->pos);
	nothing_ready(l);
	log_superblock(l, 1, 10);
	ok(tw_jbd2_write(l->j, 0, l->blocks[0]));
	l->blocks[2][5] ^= 1; /* nothing is loaded */
	is_next(l, false, 10, three, 3);
	log_free(l);
}

static void a_clean_unmount_empties_the_journal_and_a_mount_begins_anew(void **state)
{
	(void)state;
	struct journal *l = log_new(JBD2_V3_F, 1, 10);
	log_blocks(l, one, 1);
	log_commit(l);
	log_write(l, 1, l->pos);
	is_next(l, false, 10, one, 1);
	log_superblock(l, 0, 11);
	ok(tw_jbd2_write(l->j, 0, l->blocks[0]));
	assert_int_equal(tw_jbd2_position(l->j).head, 0);
	assert_int_equal(tw_jbd2_position(l->j).sequence, 11);
	/* The next mount begins at the log's first block. */
	l->pos = 1;
	log_superblock(l, 1, 11);
	ok(tw_jbd2_write(l->j, 0, l->blocks[0]));
	log_blocks(l, three, 3);
	log_commit(l);
	log_write(l, 1, l->pos);
	is_next(l, false, 11, three, 3);
	log_free(l);
}

/* The tail follows behind as the guest checkpoints. */
static void a_tail_update_changes_nothing(void **state)
{
	(void)state;
	struct journal *l = log_new(JBD2_V3_F, 1, 10);
	for (unsigned i = 0; i < 5; i++) {
		uint32_t begin = l->pos;
		log_blocks(l, one, 1);
		log_commit(l);
		log_write(l, begin, l->pos);
		is_next(l, false, 10 + i, one, 1);
	}
	struct tw_jbd2_position before = tw_jbd2_position(l->j);
	log_superblock(l, 4, 11);
	ok(tw_jbd2_write(l->j, 0, l->blocks[0]));
	assert_int_equal(tw_jbd2_position(l->j).head, before.head);
	assert_int_equal(tw_jbd2_position(l->j).sequence, 15);
	/* The tail has caught up. */
	log_superblock(l, l->pos, 15);
	ok(tw_jbd2_write(l->j, 0, l->blocks[0]));
	assert_int_equal(tw_jbd2_position(l->j).head, before.head);
	log_free(l);
}

/* After a crash the guest replays its journal and goes on with a later sequence. */
static void a_recovery_begins_a_new_stretch(void **state)
{
	(void)state;
	struct journal *l = log_new(JBD2_V3_F, 1, 10);
	log_blocks(l, one, 1);
	uint32_t commit = log_commit(l);
	log_write(l, 1, commit); /* the crash came before the commit block */
	l->sequence = 13;
	l->pos = 1;
	log_superblock(l, 0, 13);
	ok(tw_jbd2_write(l->j, 0, l->blocks[0]));
	log_superblock(l, 1, 13);
	ok(tw_jbd2_write(l->j, 0, l->blocks[0]));
	log_blocks(l, three, 3);
	log_commit(l);
	log_write(l, 1, l->pos);
	is_next(l, false, 13, three, 3);
	log_free(l);
}

static void a_superblock_of_nonsense_is_passed_over(void **state)
{
	(void)state;
	struct journal *l = log_new(JBD2_V3_F, 1, 10);
	uint8_t zero[LOG_BLOCK] = { 0 };
	ok(tw_jbd2_write(l->j, 0, zero));
	log_superblock(l, LOG_LEN, 500);
	ok(tw_jbd2_write(l->j, 0, l->blocks[0]));
	assert_int_equal(tw_jbd2_position(l->j).head, 1);
	assert_int_equal(tw_jbd2_position(l->j).sequence, 10);
	log_free(l);
}

static void recovery_reads_what_was_written_before(void **state)
{
	(void)state;
	for (size_t f = 0; f < NFEATURES; f++) {
		uint32_t begin = all_features[f] & JBD2_FAST_F ? 19 : 29;
		struct journal *l = log_new(all_features[f], begin, 10);
		struct tw_jbd2_transaction txn;
		log_blocks(l, three, 3);
		log_commit(l);
		log_blocks(l, one, 1);
		log_commit(l);
		log_blocks(l, three, 3); /* without its commit block */
		is_next(l, true, 10, three, 3);
		is_next(l, true, 11, one, 1);
		assert_false(next(l, true, &txn));
		log_free(l);
	}
}

/* Half of it was written before we came. */
static void a_journal_joined_in_the_middle_loads_the_rest(void **state)
{
	(void)state;
	struct journal *l = log_new(JBD2_V3_F, 1, 10);
	log_blocks(l, three, 3);
	uint32_t commit = log_commit(l);
	log_write(l, 3, commit + 1);
	is_next(l, false, 10, three, 3);
	log_free(l);
}

struct carry {
	struct tw_jbd2 *to;
	unsigned n;
};

static void carry(uint32_t at, const uint8_t *data, void *arg)
{
	struct carry *c = arg;
	ok(tw_jbd2_write(c->to, at, data));
	c->n++;
}

static void what_is_pending_can_be_carried_over(void **state)
{
	(void)state;
	struct journal *l = log_new(JBD2_V3_F, 1, 10), *other = log_new(JBD2_V3_F, 1, 10);
	log_blocks(l, one, 1);
	uint32_t second = log_commit(l) + 1;
	log_write(l, 1, second);
	is_next(l, false, 10, one, 1);
	log_blocks(l, three, 3);
	uint32_t commit = log_commit(l);
	log_write(l, second, commit);
	struct carry c = { other->j, 0 };
	tw_jbd2_pending(l->j, carry, &c);
	assert_int_equal(c.n, 4);
	tw_jbd2_set_position(other->j, tw_jbd2_position(l->j));
	ok(tw_jbd2_write(other->j, commit, l->blocks[commit]));
	is_next(other, false, 11, three, 3);
	log_free(l);
	log_free(other);
}

static void features_that_are_not_followed_are_named(void **state)
{
	(void)state;
	static const struct { uint32_t feature; const char *name; } cases[] = {
		{ 0x40, "0x40" }, { 0x100, "0x100" },
	};
	for (size_t i = 0; i < 2; i++) {
		struct journal l = { .features = JBD2_V3_F | cases[i].feature };
		log_superblock(&l, 1, 1);
		struct tw_error *err = tw_jbd2_create(tw_span(l.blocks[0], LOG_BLOCK), LOG_BLOCK,
			log_load, &l, &l.j);
		assert_non_null(err);
		assert_int_equal(tw_error_code(err), TW_UNSUPPORTED);
		assert_non_null(strstr(tw_error_message(err), cases[i].name));
		tw_error_destroy(err);
	}
}

static void a_superblock_that_contradicts_itself_is_refused(void **state)
{
	(void)state;
	static const struct { size_t off; uint32_t value; } cases[] = {
		{ 0, 0 }, { 4, 1 }, { 12, 4096 }, { 16, 1 }, { 16, 0 }, { 20, 0 }, { 20, LOG_LEN },
		{ 28, LOG_LEN }, { 28, UINT32_MAX },
	};
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		struct journal l = { .features = JBD2_V3_F };
		log_superblock(&l, 1, 1);
		be32(l.blocks[0] + cases[i].off, cases[i].value);
		fails(tw_jbd2_create(tw_span(l.blocks[0], LOG_BLOCK), LOG_BLOCK, log_load, &l, &l.j),
			TW_BAD_DATA);
	}
	struct journal l = { .features = JBD2_FAST_F };
	log_superblock(&l, 22, 1);
	fails(tw_jbd2_create(tw_span(l.blocks[0], LOG_BLOCK), LOG_BLOCK, log_load, &l, &l.j), TW_BAD_DATA);
	log_superblock(&l, 1, 1);
	be32(l.blocks[0] + 0x54, 31);
	fails(tw_jbd2_create(tw_span(l.blocks[0], LOG_BLOCK), LOG_BLOCK, log_load, &l, &l.j), TW_UNSUPPORTED);
	l = (struct journal){ .features = 0 };
	log_superblock(&l, 1, 1);
	fails(tw_jbd2_create(tw_span(l.blocks[0], 512), LOG_BLOCK, log_load, &l, &l.j), TW_BAD_DATA);
}

/* Descriptors without an end, one after the other: no checksum to stop at. */
static void a_log_of_nonsense_ends(void **state)
{
	(void)state;
	struct journal *l = log_new(JBD2_REVOKE_F, 1, 10);
	struct tw_jbd2_transaction txn;
	for (uint32_t at = 1; at < LOG_LEN; at++) {
		log_header(l->blocks[at], T_DESCRIPTOR, 10);
		for (size_t off = 12; off + 8 <= LOG_BLOCK; off += 8)
			l->blocks[at][off + 7] = 2;
	}
	assert_false(next(l, true, &txn));
	for (uint32_t at = 1; at < LOG_LEN; at++) {
		log_header(l->blocks[at], T_REVOKE, 10);
		be32(l->blocks[at] + 12, UINT32_MAX);
	}
	tw_jbd2_destroy(l->j);
	log_open(l);
	assert_false(next(l, true, &txn));
	for (uint32_t at = 1; at < LOG_LEN; at++)
		be32(l->blocks[at] + 12, 0);
	tw_jbd2_destroy(l->j);
	log_open(l);
	assert_false(next(l, true, &txn));
	log_free(l);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_transaction_is_there_with_its_commit_block),
		cmocka_unit_test(block_numbers_beyond_32_bits_are_followed),
		cmocka_unit_test(several_descriptors_make_one_transaction),
		cmocka_unit_test(transactions_come_in_order_over_the_end_of_the_log),
		cmocka_unit_test(several_transactions_may_wait),
		cmocka_unit_test(revoked_blocks_are_listed),
		cmocka_unit_test(a_transaction_may_be_empty),
		cmocka_unit_test(fast_commits_lie_behind_the_log),
		cmocka_unit_test(an_aborted_journal_keeps_what_was_committed),
		cmocka_unit_test(old_transactions_in_the_log_do_not_count),
		cmocka_unit_test(an_older_transaction_where_the_next_would_be_is_the_end_of_the_log),
		cmocka_unit_test(a_later_commit_without_this_transaction_is_a_gap),
		cmocka_unit_test(an_empty_journal_waits_for_its_superblock),
		cmocka_unit_test(a_log_may_be_written_before_its_superblock),
		cmocka_unit_test(a_clean_unmount_empties_the_journal_and_a_mount_begins_anew),
		cmocka_unit_test(a_tail_update_changes_nothing),
		cmocka_unit_test(a_recovery_begins_a_new_stretch),
		cmocka_unit_test(a_superblock_of_nonsense_is_passed_over),
		cmocka_unit_test(recovery_reads_what_was_written_before),
		cmocka_unit_test(a_journal_joined_in_the_middle_loads_the_rest),
		cmocka_unit_test(what_is_pending_can_be_carried_over),
		cmocka_unit_test(features_that_are_not_followed_are_named),
		cmocka_unit_test(a_superblock_that_contradicts_itself_is_refused),
		cmocka_unit_test(a_log_of_nonsense_ends),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
