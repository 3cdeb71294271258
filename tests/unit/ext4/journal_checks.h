/* SPDX-License-Identifier: BSD-3-Clause */
/* What the tests of jbd2 share: forms of a journal, transactions, and what comes of them. */
#ifndef EXT4_JOURNAL_CHECKS_H
#define EXT4_JOURNAL_CHECKS_H

#include "journal.h"

static const uint32_t all_features[] __attribute__((unused)) = { 0, JBD2_REVOKE_F, JBD2_64BIT_F, JBD2_V1_F,
	JBD2_V1_F | JBD2_64BIT_F | JBD2_ASYNC_F, JBD2_V2_F, JBD2_V2_F | JBD2_64BIT_F, JBD2_V3_F,
	JBD2_V3_F | JBD2_64BIT_F | JBD2_REVOKE_F, JBD2_V3_F | JBD2_ASYNC_F, JBD2_V3_F | JBD2_FAST_F };
enum { NFEATURES = sizeof(all_features) / sizeof(*all_features) };

static inline bool next(struct journal *l, bool recover, struct tw_jbd2_transaction *txn)
{
	bool ready;
	ok(tw_jbd2_next(l->j, recover, &ready, txn));
	return ready;
}

static inline void nothing_ready(struct journal *l)
{
	struct tw_jbd2_transaction txn;
	assert_false(next(l, false, &txn));
}

/* The next transaction is this one, and writes these blocks. */
static inline void is_next(struct journal *l, bool recover, uint32_t sequence, const struct log_item *items,
	size_t n)
{
	struct tw_jbd2_transaction txn;
	assert_true(next(l, recover, &txn));
	assert_int_equal(txn.sequence, sequence);
	assert_int_equal(txn.time.sec, 1700000000u + sequence);
	assert_int_equal(txn.time.nsec, 123456789);
	assert_int_equal(txn.nblocks, n);
	for (size_t i = 0; i < n; i++) {
		uint8_t expected[LOG_BLOCK];
		memset(expected, items[i].fill, LOG_BLOCK);
		if (items[i].escaped)
			be32(expected, LOG_MAGIC);
		assert_true(txn.blocks[i].block == items[i].block);
		assert_memory_equal(txn.blocks[i].data, expected, LOG_BLOCK);
	}
	tw_jbd2_release(l->j, &txn);
}

/* Block numbers that fit the width. */
static const struct log_item three[] __attribute__((unused)) = {
	{ 100, 1, false }, { 7, 2, true }, { 65536, 3, false } };
static const struct log_item one[] __attribute__((unused)) = { { 42, 9, false } };

/* One transaction, so that nothing is loaded any more. */
static inline void log_open_live(struct journal *l, const struct log_item *items, size_t n)
{
	uint32_t begin = l->pos, sequence = l->sequence;
	log_blocks(l, items, n);
	log_commit(l);
	log_write(l, begin, l->pos);
	is_next(l, false, sequence, items, n);
}

#endif
