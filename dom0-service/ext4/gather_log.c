/* SPDX-License-Identifier: BSD-3-Clause */
/* The log's part of what gather.c reads: transactions, fast commits, and what is under way. */
#include "ext4/gather.h"

#include <stdlib.h>

struct tw_error *ext4_gather_open_log(struct ext4_gather *g)
{
	struct ext4 *fs = g->fs;
	tw_jbd2_destroy(g->journal);
	g->journal = NULL;
	TW_TRY(ext4_journal_load(fs, 0, g->superblock));
	return tw_jbd2_create(tw_span(g->superblock, fs->geo.blocksize), fs->geo.blocksize,
		ext4_journal_load, fs, &g->journal);
}

static bool later(uint32_t a, uint32_t b)
{
	return (int32_t)(a - b) > 0;
}

/* The next transaction that is whole. Where nothing tells a block of it from another one, it is
 * read once more: the first time, its commit block was read last. */
static struct tw_error *next_transaction(
	struct ext4_gather *g, bool *ready, struct tw_jbd2_transaction *txn)
{
	struct tw_jbd2_position at = tw_jbd2_position(g->journal);
	TW_TRY(tw_jbd2_next(g->journal, true, ready, txn));
	if (!*ready || tw_jbd2_checks_blocks(tw_jbd2_superblock(g->journal)))
		return NULL;
	tw_jbd2_release(g->journal, txn);
	tw_jbd2_forget(g->journal);
	tw_jbd2_set_position(g->journal, at);
	return tw_jbd2_next(g->journal, true, ready, txn);
}

/* Takes what was committed since the last time. While we read it, the guest must not have given the
 * room of the first one to others. */
struct tw_error *ext4_gather_pull(struct ext4_gather *g)
{
	struct tw_jbd2_position first = tw_jbd2_position(g->journal), tail;
	/* What was read of the next one may have been older than its descriptor. */
	tw_jbd2_forget(g->journal);
	for (;;) {
		struct tw_jbd2_transaction txn;
		bool ready;
		TW_TRY(next_transaction(g, &ready, &txn));
		if (!ready)
			break;
		struct tw_error *err = ext4_replay_take(&g->fs->geo, &txn, &g->log);
		tw_jbd2_release(g->journal, &txn);
		TW_TRY(err);
		TW_TRY(ext4_gather_check_size(g));
	}
	ext4_replay_drop_revoked(&g->log);
	if (!g->live)
		return NULL;
	TW_TRY(ext4_journal_load(g->fs, 0, g->buf));
	tail = tw_jbd2_tail(tw_span(g->buf, g->fs->geo.blocksize));
	g->again = !tail.head || later(tail.sequence, first.sequence);
	return NULL;
}

/* The block before a position is the commit of the transaction before: else another image has been
 * copied over this one. */
static struct tw_error *check_log(struct ext4_gather *g, struct tw_jbd2_position at)
{
	struct tw_span block = tw_span(g->buf, g->fs->geo.blocksize);
	TW_TRY(ext4_journal_load(g->fs, tw_jbd2_before(g->journal, at.head), g->buf));
	return tw_jbd2_is_commit(block, at.sequence - 1)
		       ? NULL
		       : tw_error_create(TW_GAP, "the journal was made anew");
}

/* How many blocks of fast commits were taken, if this is still the transaction under way; UINT32_MAX:
 * none is taken any more. */
static uint32_t fast_taken(const struct ext4 *fs, struct tw_jbd2_position at)
{
	bool same = fs->fast && tw_jbd2_same(at, tw_jbd2_position(fs->journal)) &&
		    ext4_fc_sequence(fs->fast) == at.sequence;
	return same ? ext4_fc_position(fs->fast) : 0;
}

/* The log goes back to the last commit in the same stretch only: a mount or a recovery begins a new
 * one behind all that was committed. Where it begins with the transaction under way, fast commits of
 * that one say that it is the same stretch still. */
struct tw_error *ext4_gather_begin_log(struct ext4_gather *g)
{
	struct ext4 *fs = g->fs;
	if (!g->journal)
		return NULL;
	if (!g->live)
		TW_TRY(ext4_gather_open_log(g));
	struct tw_jbd2_position was = tw_jbd2_position(fs->journal),
				tail = tw_jbd2_position(g->journal);
	bool behind = later(was.sequence, tail.sequence);
	uint32_t fast = fast_taken(fs, was);
	g->onward = g->live && was.head && (behind || (fast && tw_jbd2_same(was, tail)));
	if (g->onward && (behind || fast == UINT32_MAX))
		TW_TRY(check_log(g, was));
	if (g->onward)
		tw_jbd2_set_position(g->journal, was);
	g->start = tw_jbd2_position(g->journal);
	return g->start.head ? ext4_gather_pull(g) : NULL;
}

/* --- fast commits --- */

/* The place of a block of the log on the volume; 0: there is none. */
static uint64_t log_place(const struct ext4 *fs, uint32_t log_block)
{
	const struct tw_inode *journal = tw_view_inode(fs->view, fs->geo.journal_ino);
	struct tw_extent one;
	uint32_t n = 0;
	const struct tw_extent *e = journal ? tw_inode_extents(journal, &one, &n) : NULL;
	for (; n--; e++)
		if (log_block >= e->lblk && log_block - e->lblk < e->count)
			return e->block + (log_block - e->lblk);
	return 0;
}

/* Keeps a block of the area; *data is borrowed. */
static struct tw_error *read_fast_block(
	struct ext4_gather *g, uint32_t index, const uint8_t **data)
{
	TW_TRY(ext4_journal_load(g->fs, tw_jbd2_fast_log_block(g->journal, index), g->buf));
	TW_TRY(ext4_block_store(&g->fast, index, 0, g->buf, g->fs->geo.blocksize));
	*data = ext4_block_find(g->fast, index)->data;
	return ext4_gather_check_size(g);
}

/* Reads fast commits up to the first that is not whole. */
static struct tw_error *read_whole(struct ext4_gather *g, uint32_t sequence, struct ext4_fc *fc)
{
	uint32_t index;
	while ((index = ext4_fc_wanted(fc)) < ext4_fc_blocks(fc)) {
		const struct ext4_fc_op *ops;
		const uint8_t *data;
		bool ready;
		size_t n;
		TW_TRY(read_fast_block(g, index, &data));
		TW_TRY(ext4_fc_write(fc, sequence, index, data));
		TW_TRY(ext4_fc_next(fc, sequence, &ready, &ops, &n));
		if (ready)
			ext4_fc_release(fc);
	}
	return NULL;
}

/* Behind them, blocks that were missed: the others come with the stream. */
static struct tw_error *read_missed(struct ext4_gather *g, uint32_t from, uint32_t n)
{
	const uint8_t *data;
	for (uint32_t index = from; index < n; index++) {
		uint64_t place = log_place(g->fs, tw_jbd2_fast_log_block(g->journal, index));
		if (place && ext4_gather_is_dirty(g, place) && !ext4_block_find(g->fast, index))
			TW_TRY(read_fast_block(g, index, &data));
	}
	return NULL;
}

/* *anew: the last one that was taken is not there any more. */
static struct tw_error *read_fast(struct ext4_gather *g, uint32_t sequence, uint32_t from, bool *anew)
{
	const struct ext4_geometry *geo = &g->fs->geo;
	uint32_t n = tw_jbd2_fast_blocks(g->journal);
	struct ext4_fc *fc;
	ext4_block_clear(&g->fast);
	*anew = from > n;
	if (from && !*anew) {
		uint32_t last = tw_jbd2_fast_log_block(g->journal, from - 1);
		TW_TRY(ext4_journal_load(g->fs, last, g->buf));
		*anew = !ext4_fc_is_last(tw_span(g->buf, geo->blocksize), sequence);
	}
	if (*anew)
		return NULL;
	TW_TRY(ext4_fc_create(n, geo->blocksize, geo->inode_size, &fc));
	ext4_fc_set_position(fc, sequence, from);
	struct tw_error *err = read_whole(g, sequence, fc);
	ext4_fc_destroy(fc);
	return err ? err : read_missed(g, from, n);
}

/* Their area is begun anew after a commit: they are of this transaction if none came meanwhile. */
struct tw_error *ext4_gather_fast(struct ext4_gather *g)
{
	struct tw_jbd2_position at = tw_jbd2_position(g->journal);
	uint32_t from = fast_taken(g->fs, at);
	bool anew;
	if (!tw_jbd2_fast_blocks(g->journal) || from == UINT32_MAX)
		return NULL;
	TW_TRY(read_fast(g, at.sequence, from, &anew));
	TW_TRY(ext4_gather_pull(g));
	g->fresh = !tw_jbd2_same(at, tw_jbd2_position(g->journal));
	if (g->fresh || g->again || !anew)
		return NULL;
	return tw_error_create(TW_GAP, "the fast commits are others");
}

/* --- the transaction under way --- */

struct pending {
	struct ext4_gather *g;
	struct tw_error *err;
};

static void take_pending(uint32_t log_block, const uint8_t *data, void *arg)
{
	struct pending *p = arg;
	struct ext4_gather *g = p->g;
	uint32_t head = tw_jbd2_position(g->journal).head;
	/* What was under way then may have been committed since. */
	if (!p->err && !tw_jbd2_within(g->start.head, head, log_block))
		p->err = ext4_block_store(
			&g->pending, log_block, 0, data, g->fs->geo.blocksize);
}

/* Reads a block of it if it was missed. Its commit was not there when the log was read: it comes with the
 * stream, and until then a flush is none that it should have waited for. */
static struct tw_error *read_pending(struct ext4_gather *g, uint32_t at)
{
	uint32_t size = g->fs->geo.blocksize;
	uint64_t place = log_place(g->fs, at);
	struct tw_span sb = tw_jbd2_superblock(g->journal);
	if (!place || !ext4_gather_is_dirty(g, place))
		return NULL;
	TW_TRY(ext4_journal_load(g->fs, at, g->buf));
	if (!tw_jbd2_commits_early(sb) && tw_jbd2_is_commit(tw_span(g->buf, size),
						  tw_jbd2_position(g->journal).sequence))
		return NULL;
	return ext4_block_store(&g->pending, at, 0, g->buf, size);
}

/* Fast commits that were made since the log was emptied: they count when it is in use again. */
static struct tw_error *early_pending(struct ext4_gather *g, struct pending *p)
{
	struct ext4 *fs = g->fs;
	struct tw_span sb = tw_jbd2_superblock(g->journal);
	uint32_t at = tw_jbd2_fast_area(sb), end = at ? tw_jbd2_blocks(sb) : 0;
	if (tw_jbd2_same(tw_jbd2_position(g->journal), tw_jbd2_position(fs->journal)))
		tw_jbd2_pending(fs->journal, take_pending, p);
	TW_TRY(p->err);
	for (; at < end; at++)
		TW_TRY(read_pending(g, at));
	return NULL;
}

/* Its blocks that were seen before the gap, and those that were missed; the others come with the
 * stream. Later, nothing must be looked up in a log that has gone on. */
struct tw_error *ext4_gather_pending(struct ext4_gather *g)
{
	struct ext4 *fs = g->fs;
	struct pending p = {g, NULL};
	uint32_t at = g->journal ? tw_jbd2_position(g->journal).head : 0;
	if (g->journal && !at)
		return early_pending(g, &p);
	/* Where all before it has left the log, it is the same one still. */
	bool same = at && tw_jbd2_same(g->start, tw_jbd2_position(fs->journal));
	uint32_t most = at ? tw_jbd2_blocks(tw_jbd2_superblock(g->journal)) / 3 : 0;
	if (g->onward || same)
		tw_jbd2_pending(fs->journal, take_pending, &p);
	TW_TRY(p.err);
	for (uint32_t i = 0; i < most; i++, at = tw_jbd2_after(g->journal, at))
		TW_TRY(read_pending(g, at));
	return NULL;
}
