/* SPDX-License-Identifier: BSD-3-Clause */
/* Moves an instance by what gather.c found, as if it had just been written. */
#include "ext4/ext4.h"

#include "base/pack.h"

#include <stdlib.h>

struct mend {
	struct ext4 *fs;
	struct tw_unpack in;
	struct tw_time now;
	bool onward; /* the log goes back to the last commit that was followed */
	bool moved;  /* it has another transaction under way than before */
	struct ext4_blockset *blocks; /* what is written, at its home */
};

static struct tw_error *damaged(void)
{
	return tw_error_create(TW_BAD_DATA, "what was gathered is cut off");
}

/* Calls each() for the blocks of a list. */
static struct tw_error *each_block(struct mend *m,
	struct tw_error *(*each)(struct mend *m, uint64_t block, const uint8_t *data))
{
	uint64_t n = tw_unpack64(&m->in);
	for (uint64_t i = 0; i < n && !m->in.failed; i++) {
		uint64_t block = tw_unpack64(&m->in);
		const uint8_t *data = tw_unpack_raw(&m->in, m->fs->geo.blocksize);
		if (data)
			TW_TRY(each(m, block, data));
	}
	return m->in.failed ? damaged() : NULL;
}

static bool is_metadata(const struct ext4 *fs, uint64_t block)
{
	struct tw_owner owner;
	return tw_owners_find(tw_view_owners(fs->view), block, 1, &owner) &&
	       (owner.kind == TW_OWNER_TABLE || owner.kind == TW_OWNER_DIR ||
		       owner.kind == TW_OWNER_NODE || owner.kind == TW_OWNER_SYMLINK);
}

/* Without a journal it waits until it hangs together, as if it had been written. */
static struct tw_error *take_home(struct mend *m, uint64_t block, const uint8_t *data)
{
	struct ext4 *fs = m->fs;
	if (fs->journal)
		return ext4_blockset_add(m->blocks, block, data);
	bool owned = is_metadata(fs, block);
	TW_TRY(ext4_block_store(
		owned ? &fs->direct : &fs->early, block, 0, data, fs->geo.blocksize));
	if (!owned)
		return NULL;
	ext4_block_find(fs->direct, block)->digest = 0;
	ext4_block_drop(&fs->early, block);
	return NULL;
}

static struct tw_error *take_early(struct mend *m, uint64_t block, const uint8_t *data)
{
	return ext4_unjournaled_keep(m->fs, block, data);
}

/* The guest will checkpoint it. */
static struct tw_error *take_logged(struct mend *m, uint64_t block, const uint8_t *data)
{
	struct ext4 *fs = m->fs;
	struct ext4_block *recent;
	TW_TRY(ext4_block_get(&fs->recent, block, &recent));
	recent->digest = ext4_digest(data, fs->geo.blocksize);
	ext4_block_drop(&fs->direct, block);
	return ext4_blockset_add(m->blocks, block, data);
}

static void forget_revoked(struct mend *m)
{
	uint64_t n = tw_unpack64(&m->in);
	for (uint64_t i = 0; i < n && !m->in.failed; i++) {
		uint64_t block = tw_unpack64(&m->in);
		if (!ext4_blockset_find(m->blocks, block))
			ext4_block_drop(&m->fs->recent, block);
	}
}

static struct tw_error *take_pending(struct mend *m, uint64_t log_block, const uint8_t *data)
{
	return tw_jbd2_write(m->fs->journal, (uint32_t)log_block, data);
}

static struct tw_error *take_fast(struct mend *m, uint64_t index, const uint8_t *data)
{
	struct ext4 *fs = m->fs;
	if (!fs->fast)
		return damaged();
	return ext4_fc_write(
		fs->fast, tw_jbd2_position(fs->journal).sequence, (uint32_t)index, data);
}

/* Fast commits go on where they were, if they are of the same transaction still. */
static struct tw_error *open_fast(struct mend *m)
{
	struct ext4 *fs = m->fs;
	if (fs->journal && tw_jbd2_fast_blocks(fs->journal))
		TW_TRY(ext4_fast_open(fs));
	if (fs->fast && m->moved)
		ext4_fc_set_position(fs->fast, tw_jbd2_position(fs->journal).sequence, 0);
	return each_block(m, take_fast);
}

static struct tw_error *take_journal(struct mend *m)
{
	struct ext4 *fs = m->fs;
	struct tw_jbd2 *journal;
	if ((tw_unpack32(&m->in) != 0) != (fs->journal != NULL))
		return damaged();
	if (!fs->journal)
		return NULL;
	/* Nothing is loaded: it would not be the same the next time. */
	TW_TRY(tw_jbd2_create(
		tw_unpack_bytes(&m->in), fs->geo.blocksize, NULL, NULL, &journal));
	struct tw_jbd2_position position = {.head = tw_unpack32(&m->in)};
	position.sequence = tw_unpack32(&m->in);
	m->moved = !tw_jbd2_same(position, tw_jbd2_position(fs->journal));
	tw_jbd2_destroy(fs->journal);
	fs->journal = journal;
	tw_jbd2_set_position(journal, position);
	fs->log_behind = tw_unpack32(&m->in);
	return each_block(m, take_pending);
}

static struct tw_error *take(struct mend *m)
{
	struct ext4 *fs = m->fs;
	const uint8_t *superblock = tw_unpack_raw(&m->in, sizeof(fs->superblock));
	if (!superblock)
		return damaged();
	memcpy(fs->superblock, superblock, sizeof(fs->superblock));
	m->onward = tw_unpack32(&m->in);
	TW_TRY(take_journal(m));
	if (fs->journal && !m->onward) {
		ext4_block_clear(&fs->recent);
		ext4_block_clear(&fs->direct);
	}
	TW_TRY(each_block(m, take_home));
	TW_TRY(each_block(m, take_early));
	TW_TRY(each_block(m, take_logged));
	forget_revoked(m);
	TW_TRY(open_fast(m));
	return m->in.failed ? damaged() : NULL;
}

/* What was kept of blocks that have been written since. */
static void forget_early(struct ext4 *fs, const struct tw_missed *written)
{
	struct ext4_block *b, *next;
	HASH_ITER (hh, fs->early, b, next)
		if (tw_missed_hits(written, b->block << fs->geo.blockbits, fs->geo.blocksize))
			ext4_block_drop(&fs->early, b->block);
}

/* What was written unseen may be a recovery's, until a commit shows that there was none. */
static struct tw_error *keep_missed(struct ext4 *fs, const struct tw_missed *data)
{
	for (size_t i = 0; i < data->n && ext4_fast_counts(fs); i++)
		TW_TRY(ext4_fast_missed(fs, data->ranges[i].offset, data->ranges[i].length));
	return NULL;
}

static struct tw_error *mend(struct mend *m, const struct tw_missed *data)
{
	struct ext4 *fs = m->fs;
	struct tw_commit commit = {m->now, m->now, 0, true};
	/* By their owners until now: what has another one is told by its mapping. */
	for (size_t i = 0; i < data->n; i++)
		TW_TRY(ext4_missed_data(fs, tw_view_owners(fs->view), &data->ranges[i]));
	forget_early(fs, data);
	TW_TRY(take(m));
	if (!fs->journal)
		return ext4_unjournaled_settle(fs, m->now, false);
	if (m->moved)
		ext4_fast_committed(fs);
	TW_TRY(ext4_apply(fs, m->blocks, &commit));
	TW_TRY(ext4_fast_take(fs, m->now));
	TW_TRY(keep_missed(fs, data));
	fs->data_logged = fs->data_logged || ext4_data_expected(fs);
	if (tw_jbd2_position(fs->journal).head)
		ext4_block_clear(&fs->early);
	return NULL;
}

struct tw_error *ext4_mend(
	void *arg, struct tw_span gathered, const struct tw_missed *data, struct tw_time now)
{
	struct ext4 *fs = arg;
	struct mend m = {
		.fs = fs, .in = {.span = gathered}, .now = now, .blocks = ext4_blockset_create()};
	fs->mending = true;
	struct tw_error *err = m.blocks ? mend(&m, data) : tw_error_nomem();
	fs->mending = false;
	ext4_blockset_destroy(m.blocks);
	return err;
}
