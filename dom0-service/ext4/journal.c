/* SPDX-License-Identifier: BSD-3-Clause */
/* Follows the journal: its transactions and its fast commits become changes of the view. */
#include "ext4/ext4.h"

#include <stdlib.h>

struct tw_error *ext4_journal_load(void *arg, uint32_t log_block, void *buf)
{
	const struct ext4 *fs = arg;
	const struct tw_inode *journal = tw_view_inode(fs->view, fs->geo.journal_ino);
	struct tw_extent one;
	uint32_t n = 0;
	const struct tw_extent *e = journal ? tw_inode_extents(journal, &one, &n) : NULL;
	for (; n--; e++) {
		if (log_block < e->lblk || log_block - e->lblk >= e->count)
			continue;
		uint64_t block = e->block + (log_block - e->lblk);
		return tw_source_read(
			&fs->env.source, block << fs->geo.blockbits, buf, fs->geo.blocksize);
	}
	return tw_error_create(TW_BAD_DATA, "the journal has no block %u", log_block);
}

/* A resize comes as a transaction. */
static struct tw_error *superblock_committed(struct ext4 *fs, const struct ext4_blockset *blocks)
{
	uint64_t block = EXT4_SUPERBLOCK_AT >> fs->geo.blockbits;
	const uint8_t *data = ext4_blockset_find(blocks, block);
	if (!data)
		return NULL;
	memcpy(fs->superblock, data + (EXT4_SUPERBLOCK_AT - (block << fs->geo.blockbits)),
		EXT4_SUPERBLOCK_BYTES);
	return ext4_superblock_check(fs);
}

bool ext4_data_expected(const struct ext4 *fs)
{
	struct tw_owner owner;
	for (const struct ext4_block *b = fs->recent; b; b = b->hh.next)
		if (tw_owners_find(tw_view_owners(fs->view), b->block, 1, &owner) &&
			owner.kind == TW_OWNER_DATA)
			return true;
	return false;
}

/* True when a block of the transaction is a file's (data=journal). */
static bool holds_data(const struct ext4 *fs, const struct ext4_blockset *blocks)
{
	const struct ext4_blockset_entry *b = NULL;
	struct tw_owner owner;
	while ((b = ext4_blockset_next(blocks, b)))
		if (tw_owners_find(tw_view_owners(fs->view), b->block, 1, &owner) &&
			owner.kind == TW_OWNER_DATA)
			return true;
	return false;
}

/* Fast commits count until a commit ends them, and for so long what a recovery may have written in
 * place is kept. None has: what is still to be checkpointed is what the log says. */
static void drop_stale(struct ext4 *fs)
{
	struct ext4_block *direct, *next;
	HASH_ITER (hh, fs->direct, direct, next)
		if (ext4_block_find(fs->recent, direct->block))
			ext4_block_drop(&fs->direct, direct->block);
}

void ext4_fast_committed(struct ext4 *fs)
{
	if (fs->fast_applied)
		drop_stale(fs);
	fs->fast_ends = fs->fast_applied;
	tw_missed_clear(&fs->fast_missed);
}

static struct tw_error *apply_transaction(
	struct ext4 *fs, const struct tw_jbd2_transaction *txn, struct tw_time now)
{
	struct ext4_blockset *blocks = ext4_blockset_create();
	struct tw_error *err = blocks ? NULL : tw_error_nomem();
	for (size_t i = 0; i < txn->nblocks && !err; i++)
		err = ext4_blockset_add(blocks, txn->blocks[i].block, txn->blocks[i].data);
	const struct ext4_blockset_entry *b = NULL;
	while (!err && (b = ext4_blockset_next(blocks, b))) {
		struct ext4_block *recent;
		err = ext4_block_get(&fs->recent, b->block, &recent);
		if (!err)
			recent->digest = ext4_digest(b->data, fs->geo.blocksize);
		/* What was written in place before the commit is older than the commit. */
		ext4_block_drop(&fs->direct, b->block);
	}
	/* A revoked block is not checkpointed any more: it may be file data next. */
	for (size_t i = 0; i < txn->nrevoked && !err; i++)
		if (!ext4_blockset_find(blocks, txn->revoked[i]))
			ext4_block_drop(&fs->recent, txn->revoked[i]);
	struct tw_commit commit = {txn->time, now, txn->sequence, false};
	if (!err)
		err = superblock_committed(fs, blocks);
	ext4_fast_committed(fs);
	if (!err)
		err = ext4_apply(fs, blocks, &commit);
	if (!err && !fs->data_logged)
		fs->data_logged = holds_data(fs, blocks);
	ext4_block_clear(&fs->early);
	ext4_blockset_destroy(blocks);
	return tw_error_context(err, "transaction %u", txn->sequence);
}

/* A guest that never commits says nothing in more ranges than these: then it is the whole volume, which is crawled. */
struct tw_error *ext4_fast_missed(struct ext4 *fs, uint64_t offset, uint64_t length)
{
	enum { MOST = 65536 };
	struct tw_missed *missed = &fs->fast_missed;
	if (missed->n < MOST)
		return tw_missed_add_range(missed, offset, length);
	tw_missed_tidy(missed);
	if (missed->n < MOST / 2)
		return tw_missed_add_range(missed, offset, length);
	tw_missed_clear(missed);
	return tw_missed_add_range(missed, 0, fs->geo.nblocks << fs->geo.blockbits);
}

bool ext4_fast_counts(const struct ext4 *fs)
{
	struct tw_jbd2_position at =
		fs->journal ? tw_jbd2_position(fs->journal) : (struct tw_jbd2_position){0};
	return at.head && fs->fast && ext4_fc_begun(fs->fast, at.sequence);
}

struct tw_error *ext4_fast_take(struct ext4 *fs, struct tw_time now)
{
	/* While the log is empty, a recovery would not look at them: there is nothing to recover. */
	if (!fs->fast || !tw_jbd2_position(fs->journal).head)
		return NULL;
	uint32_t sequence = tw_jbd2_position(fs->journal).sequence;
	struct tw_commit commit = {now, now, fs->mending ? 0 : sequence, fs->mending};
	for (;;) {
		const struct ext4_fc_op *ops;
		bool ready, taken;
		size_t n;
		TW_TRY(ext4_fc_next(fs->fast, sequence, &ready, &ops, &n));
		if (!ready)
			return NULL;
		TW_TRY(tw_error_context(ext4_fast_apply(fs, ops, n, &commit, &taken),
			"fast commit of transaction %u", sequence));
		if (taken)
			ext4_fc_release(fs->fast);
		else
			ext4_fc_give_up(fs->fast);
	}
}

struct tw_error *ext4_fast_open(struct ext4 *fs)
{
	uint32_t n = tw_jbd2_fast_blocks(fs->journal);
	if (fs->fast && ext4_fc_blocks(fs->fast) == n)
		return NULL;
	ext4_fc_destroy(fs->fast);
	fs->fast = NULL;
	return ext4_fc_create(n, fs->geo.blocksize, fs->geo.inode_size, &fs->fast);
}

static struct tw_error *fast_block(
	struct ext4 *fs, uint32_t index, const uint8_t *data, struct tw_time now)
{
	TW_TRY(ext4_fast_open(fs));
	TW_TRY(ext4_fc_write(fs->fast, tw_jbd2_position(fs->journal).sequence, index, data));
	return ext4_fast_take(fs, now);
}

/* A recovery writes a block for each thing that a fast commit said. A tool that empties the log does
 * not; what is not at home is not there any more, then. */
static struct tw_error *check_recovered(const struct ext4 *fs)
{
	if (fs->fast_missed.n)
		return tw_error_create(TW_GAP, "a recovery of fast commits was not seen as a whole");
	for (const struct ext4_block *b = fs->fast_blocks; b; b = b->hh.next)
		if (!ext4_block_find(fs->direct, b->block))
			return tw_error_create(
				TW_GAP, "the log was begun anew without its fast commits");
	return NULL;
}

struct early {
	struct ext4 *fs;
	struct tw_error *err;
};

static void take_early(uint32_t log_block, const uint8_t *data, void *arg)
{
	struct early *e = arg;
	uint32_t index, sequence = tw_jbd2_position(e->fs->journal).sequence;
	if (!e->err && tw_jbd2_fast_place(e->fs->journal, log_block, &index))
		e->err = ext4_fc_write(e->fs->fast, sequence, index, data);
}

/* Linux makes some in a log that it has emptied (a frozen file system), and says with the next commit that
 * the log is in use and has an area for them. */
static struct tw_error *early_fast_commits(struct ext4 *fs, struct tw_time now)
{
	struct early e = {fs, NULL};
	if (!tw_jbd2_position(fs->journal).head || !tw_jbd2_fast_blocks(fs->journal))
		return NULL;
	/* A tool has written the transaction first (debugfs). */
	if (tw_jbd2_underway(fs->journal))
		return NULL;
	TW_TRY(ext4_fast_open(fs));
	tw_jbd2_pending(fs->journal, take_early, &e);
	TW_TRY(e.err);
	return ext4_fast_take(fs, now);
}

/* A recovery has replayed the fast commits in place, and then begun the log anew. */
static struct tw_error *superblock_of_log(struct ext4 *fs, const uint8_t *data, struct tw_time now)
{
	struct tw_jbd2_position was = tw_jbd2_position(fs->journal);
	TW_TRY(tw_jbd2_write(fs->journal, 0, data));
	if (tw_jbd2_same(was, tw_jbd2_position(fs->journal)))
		return NULL;
	/* What a resync had read is over. */
	fs->log_behind = 0;
	TW_TRY(check_recovered(fs));
	fs->fast_ends = fs->fast_applied;
	if (fs->fast_ends)
		TW_TRY(ext4_direct_apply(fs, now));
	return early_fast_commits(fs, now);
}

/* After a resync the stream is behind the log: it brings what is known, up to the first block that
 * lies elsewhere. Nothing of that has been overwritten meanwhile. */
static bool is_known(struct ext4 *fs, uint32_t log_block)
{
	uint32_t from = fs->log_behind, to = tw_jbd2_position(fs->journal).head;
	if (!from || !log_block)
		return false;
	bool within = tw_jbd2_within(from, to, log_block);
	if (!within)
		fs->log_behind = 0;
	return within;
}

struct tw_error *ext4_journal_block(
	struct ext4 *fs, uint32_t log_block, const uint8_t *data, struct tw_time now)
{
	uint32_t index;
	/* Those that are known are behind what was taken, or of another transaction. */
	if (tw_jbd2_fast_place(fs->journal, log_block, &index))
		return fast_block(fs, index, data, now);
	if (is_known(fs, log_block))
		return NULL;
	if (!log_block)
		TW_TRY(superblock_of_log(fs, data, now));
	else
		TW_TRY(tw_jbd2_write(fs->journal, log_block, data));
	for (;;) {
		struct tw_jbd2_transaction txn;
		bool ready;
		TW_TRY(tw_jbd2_next(fs->journal, false, &ready, &txn));
		if (!ready)
			return NULL;
		struct tw_error *err = apply_transaction(fs, &txn, now);
		tw_jbd2_release(fs->journal, &txn);
		TW_TRY(err);
	}
}

static struct tw_error *mute(struct tw_event *event, void *arg)
{
	(void)event, (void)arg;
	return NULL;
}

static struct tw_error *fast_load(struct ext4 *fs, uint8_t *buf)
{
	uint32_t sequence = tw_jbd2_position(fs->journal).sequence, index;
	ext4_fc_set_position(fs->fast, sequence, 0);
	while ((index = ext4_fc_wanted(fs->fast)) < ext4_fc_blocks(fs->fast)) {
		TW_TRY(ext4_journal_load(fs, tw_jbd2_fast_log_block(fs->journal, index), buf));
		TW_TRY(ext4_fc_write(fs->fast, sequence, index, buf));
		TW_TRY(ext4_fast_take(fs, (struct tw_time){0}));
	}
	return NULL;
}

struct tw_error *ext4_fast_crawl(struct ext4 *fs)
{
	if (!fs->journal || !tw_jbd2_fast_blocks(fs->journal) ||
		!tw_jbd2_position(fs->journal).head)
		return NULL;
	TW_TRY(ext4_fast_open(fs));
	uint8_t *buf = malloc(fs->geo.blocksize);
	struct tw_error *err = buf ? NULL : tw_error_nomem();
	if (!err)
		err = tw_changeset_create(fs->view, mute, NULL, &fs->set);
	if (!err)
		err = fast_load(fs, buf);
	tw_changeset_destroy(fs->set);
	fs->set = NULL;
	free(buf);
	return err;
}
