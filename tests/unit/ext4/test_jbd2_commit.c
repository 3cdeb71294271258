/* SPDX-License-Identifier: BSD-3-Clause */
/* When a transaction counts: its blocks are there and every checksum holds, in any order of arrival. */
#include "journal_checks.h"

/* The device may complete the commit block first; until all of it is there, nothing counts. */
static void a_commit_block_before_its_blocks_waits_for_them(void **state)
{
	(void)state;
	static const uint32_t with[] = { JBD2_V1_F | JBD2_ASYNC_F, JBD2_V2_F, JBD2_V3_F | JBD2_ASYNC_F };
	for (size_t f = 0; f < 3; f++) {
		struct journal *l = log_new(with[f], 1, 10);
		uint32_t begin = l->pos;
		struct tw_jbd2_transaction txn;
		log_blocks(l, three, 3);
		uint32_t commit = log_commit(l);
		uint8_t later[LOG_LEN][LOG_BLOCK];
		/* What a look at the image would give is still the old content. */
		memcpy(later, l->blocks, sizeof(later));
		memset(l->blocks[begin], 0, (commit - begin) * LOG_BLOCK);
		ok(tw_jbd2_write(l->j, commit, later[commit]));
		assert_false(next(l, false, &txn));
		for (uint32_t at = begin; at < commit; at++) {
			assert_false(next(l, false, &txn));
			ok(tw_jbd2_write(l->j, at, later[at]));
		}
		is_next(l, false, 10, three, 3);
		log_free(l);
	}
}

static void a_flipped_bit_in_any_block_spoils_the_transaction(void **state)
{
	(void)state;
	static const struct { uint32_t features, first; } with[] = {
		{ JBD2_V1_F, 2 /* its sum knows no revocations */ }, { JBD2_V2_F, 1 },
		{ JBD2_V3_F | JBD2_64BIT_F, 1 },
	};
	for (size_t f = 0; f < 3; f++)
		for (uint32_t at = with[f].first; at <= 5; at++)
			for (uint32_t byte = 0; byte < LOG_BLOCK; byte += 13) {
				struct journal *l = log_new(with[f].features, 1, 10);
				log_revoke(l, (const uint64_t[]){ 5 }, 1);
				log_blocks(l, three, 3);
				uint32_t commit = log_commit(l);
				assert_int_equal(commit, 6);
				l->blocks[at][byte] ^= 0x10;
				log_write(l, 1, l->pos);
				nothing_ready(l);
				l->blocks[at][byte] ^= 0x10;
				ok(tw_jbd2_write(l->j, at, l->blocks[at]));
				struct tw_jbd2_transaction txn;
				assert_true(next(l, false, &txn));
				assert_int_equal(txn.nblocks, 3);
				log_free(l);
			}
}

static void a_flipped_bit_in_a_commit_block_spoils_it(void **state)
{
	(void)state;
	static const uint32_t with[] = { JBD2_V2_F, JBD2_V3_F | JBD2_64BIT_F };
	for (size_t f = 0; f < 2; f++)
		for (uint32_t byte = 0; byte < 60; byte++) {
			if (byte / 4 == 2)
				continue; /* another transaction's */
			struct journal *l = log_new(with[f], 1, 10);
			log_blocks(l, three, 3);
			uint32_t commit = log_commit(l);
			l->blocks[commit][byte] ^= 0x10;
			log_write(l, 1, l->pos);
			nothing_ready(l);
			log_free(l);
		}
	/* Only the first sector of the block has reached the disk. */
	struct journal *torn = log_new(JBD2_V3_F, 1, 10);
	log_blocks(torn, three, 3);
	memset(torn->blocks[log_commit(torn)] + 512, 0x77, 512);
	log_write(torn, 1, torn->pos);
	is_next(torn, false, 10, three, 3);
	log_free(torn);
	/* The first version guards what makes it one. */
	for (uint32_t byte = 0; byte < 20; byte++) {
		if (byte / 4 == 2)
			continue;
		struct journal *l = log_new(JBD2_V1_F, 1, 10);
		log_blocks(l, three, 3);
		uint32_t commit = log_commit(l);
		l->blocks[commit][byte] ^= 0x10;
		log_write(l, 1, l->pos);
		if (byte != 14 && byte != 15)
			nothing_ready(l);
		log_free(l);
	}
}

/* Such a journal has the feature since a mount with the option, and no sum from others. */
static void a_commit_block_may_lack_the_first_sum(void **state)
{
	(void)state;
	struct journal *l = log_new(JBD2_V1_F, 1, 10);
	log_blocks(l, three, 3);
	uint32_t commit = log_commit(l);
	memset(l->blocks[commit] + 12, 0, 8);
	log_write(l, 1, l->pos);
	is_next(l, false, 10, three, 3);
	log_free(l);
}

/* Only a flush between them says that the blocks cannot come any more. */
static void what_an_async_commit_lacks_may_still_come(void **state)
{
	(void)state;
	static const struct { uint32_t features; bool stalled; } with[] = {
		{ JBD2_V3_F, true }, { JBD2_V3_F | JBD2_ASYNC_F, false },
	};
	for (size_t f = 0; f < 2; f++) {
		struct journal *l = log_new(with[f].features, 1, 10);
		log_blocks(l, three, 3);
		uint32_t commit = log_commit(l);
		ok(tw_jbd2_write(l->j, commit, l->blocks[commit]));
		assert_int_equal(tw_jbd2_stalled(l->j), with[f].stalled);
		log_free(l);
	}
}

/* Every order in which the blocks of two transactions may be completed. */
static void blocks_may_come_in_any_order(void **state)
{
	(void)state;
	struct dice dice = { 7 };
	for (unsigned round = 0; round < 300; round++) {
		uint32_t features = all_features[roll(&dice, NFEATURES)];
		if (!(features & (JBD2_V1_F | JBD2_V2_F | JBD2_V3_F)))
			continue;
		uint32_t begin = 1 + roll(&dice, 21), order[8];
		struct journal *l = log_new(features, begin, 10);
		struct tw_jbd2_transaction txn;
		log_open_live(l, one, 1);
		begin = l->pos;
		log_blocks(l, three, 3);
		log_commit(l);
		for (uint32_t i = 0, at = begin; i < 5; i++) {
			order[i] = at;
			at = at + 1 == log_end(l) ? LOG_FIRST : at + 1;
		}
		for (uint32_t i = 4; i; i--) {
			uint32_t k = roll(&dice, i + 1), swap = order[i];
			order[i] = order[k];
			order[k] = swap;
		}
		for (unsigned i = 0; i < 5; i++) {
			assert_false(next(l, false, &txn));
			ok(tw_jbd2_write(l->j, order[i], l->blocks[order[i]]));
		}
		is_next(l, false, 11, three, 3);
		log_free(l);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_commit_block_before_its_blocks_waits_for_them),
		cmocka_unit_test(a_flipped_bit_in_any_block_spoils_the_transaction),
		cmocka_unit_test(a_flipped_bit_in_a_commit_block_spoils_it),
		cmocka_unit_test(a_commit_block_may_lack_the_first_sum),
		cmocka_unit_test(what_an_async_commit_lacks_may_still_come),
		cmocka_unit_test(blocks_may_come_in_any_order),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
