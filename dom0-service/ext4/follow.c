/* SPDX-License-Identifier: BSD-3-Clause */
/* Sorts the blocks of a write by what they are: journal, metadata at its home, file data, or
 * nobody's. */
#include "ext4/ext4.h"

#include "record.h"

#include <stdlib.h>

/* Metadata written in place is applied in batches of at most so many bytes. */
#define MAX_DIRECT (16u << 20)
/* Blocks that may turn out to be metadata: no more bytes are kept at a time. */
#define MAX_EARLY (64u << 20)

/* super.rst: where the superblock is, whatever the block size. */
enum { SB_AT = EXT4_SUPERBLOCK_AT, SB_BYTES = EXT4_SUPERBLOCK_BYTES };

struct tw_error *ext4_superblock_check(const struct ext4 *fs)
{
	const char *what =
		ext4_geometry_changed(&fs->geo, tw_span(fs->superblock, sizeof(fs->superblock)));
	return what ? tw_error_create(TW_GAP, "%s", what) : NULL;
}

/* Tools write it in parts, down to a sector. */
static struct tw_error *superblock_written(struct ext4 *fs, const struct tw_write *write)
{
	uint64_t end = write->offset + write->length;
	uint64_t from = write->offset > SB_AT ? write->offset : SB_AT;
	uint64_t to = end < SB_AT + SB_BYTES ? end : SB_AT + SB_BYTES;
	if (from >= to)
		return NULL;
	if (write->payload)
		memcpy(fs->superblock + (from - SB_AT), write->payload + (from - write->offset),
			to - from);
	else if (write->flags & TW_RECORD_ZEROES)
		memset(fs->superblock + (from - SB_AT), 0, to - from);
	else
		return tw_error_create(TW_GAP, "the superblock was overwritten unseen");
	return ext4_superblock_check(fs);
}

/* Without a journal, what waits for more may be more. */
#define MAX_WAITING (256u << 20)

/* True when a table of blocks holds more than so many bytes. */
static bool holds_more(const struct ext4 *fs, const struct ext4_block *table, uint64_t bytes)
{
	return (uint64_t)HASH_COUNT(table) << fs->geo.blockbits > bytes;
}

static bool all_zero(const uint8_t *data, size_t len)
{
	return !data[0] && !memcmp(data, data + 1, len - 1);
}

/* The lazy initialiser zeroes tables where no inode is. */
static bool empty_table(const struct ext4 *fs, uint64_t block, const uint8_t *data)
{
	uint32_t ino, n = ext4_geometry_itable(&fs->geo, block, &ino);
	const struct tw_inode *next = tw_view_inode_next(fs->view, ino);
	return (!next || next->ino >= ino + n) && all_zero(data, fs->geo.blocksize);
}

/* While the journal is empty, tools may be at work, and any block may turn out to be metadata. */
static bool offline(const struct ext4 *fs)
{
	return !fs->journal || !tw_jbd2_position(fs->journal).head;
}

struct wanted {
	const uint8_t *data;
	uint32_t blocksize;
	bool found;
};

/* In the log, a block that begins with the journal's magic begins with zeroes. */
static void compare_log_block(uint32_t log_block, const uint8_t *data, void *arg)
{
	enum { MAGIC_BYTES = 4 };
	struct wanted *wanted = arg;
	(void)log_block;
	wanted->found = wanted->found || !memcmp(data + MAGIC_BYTES, wanted->data + MAGIC_BYTES,
						 wanted->blocksize - MAGIC_BYTES);
}

/* What is committed and not yet at home will come there. Another content before that is what a
 * cache below the guest's file system writes once more: its pages hold several blocks. But a
 * recovery may replay what is in the log and was not seen to be committed, or fast commits. */
static bool is_stale(const struct ext4 *fs, const uint8_t *data)
{
	struct wanted wanted = {.data = data, .blocksize = fs->geo.blocksize};
	if (offline(fs) || fs->fast_applied)
		return false;
	tw_jbd2_pending(fs->journal, compare_log_block, &wanted);
	return !wanted.found;
}

static struct tw_error *home_block(struct ext4 *fs, const struct tw_owner *owner, uint64_t block,
	const uint8_t *data, struct tw_time now)
{
	const struct ext4_block *recent = ext4_block_find(fs->recent, block);
	uint64_t most = fs->direct_most ? fs->direct_most : MAX_DIRECT;
	if (recent && recent->digest == ext4_digest(data, fs->geo.blocksize)) {
		/* The checkpoint of what is known. */
		ext4_block_drop(&fs->recent, block);
		ext4_block_drop(&fs->direct, block);
		return NULL;
	}
	if (recent && is_stale(fs, data))
		return NULL;
	if (owner->kind == TW_OWNER_TABLE && empty_table(fs, block, data))
		return NULL;
	TW_TRY(ext4_block_store(&fs->direct, block, 0, data, fs->geo.blocksize));
	ext4_block_find(fs->direct, block)->digest = 0;
	/* What it was before it was known for what it is. */
	ext4_block_drop(&fs->early, block);
	if (!holds_more(fs, fs->direct, most))
		return NULL;
	if (fs->journal)
		return ext4_settle(fs, now, true);
	TW_TRY(ext4_unjournaled_settle(fs, now, most >= MAX_WAITING));
	/* Not again at the next block. */
	most = 2ull * HASH_COUNT(fs->direct) << fs->geo.blockbits;
	fs->direct_most = most > MAX_WAITING ? MAX_WAITING : most > MAX_DIRECT ? most : 0;
	return NULL;
}

static struct tw_error *data_written(
	struct ext4 *fs, const struct tw_owner *owner, uint64_t from, uint64_t to)
{
	struct tw_change *change;
	uint64_t at = owner->block << fs->geo.blockbits;
	uint64_t file_at = (uint64_t)owner->lblk << fs->geo.blockbits;
	fs->data_waits = true;
	TW_TRY(tw_changeset_inode(fs->set, owner->ino, &change));
	return tw_changeset_range(change, file_at + (from - at), to - from);
}

/* The content of a block that a write covers. Linux and its tools write metadata in whole blocks,
 * and what is not in the stream cannot be looked up: the image may have gone on. */
static struct tw_error *block_content(
	const struct ext4 *fs, const struct tw_write *write, uint64_t block, const uint8_t **out)
{
	static const uint8_t zeroes[65536];
	uint64_t at = block << fs->geo.blockbits, end = at + fs->geo.blocksize;
	if (write->offset > at || write->offset + write->length < end)
		return tw_error_create(
			TW_GAP, "block %llu was overwritten in part", (unsigned long long)block);
	if (!write->payload && !(write->flags & TW_RECORD_ZEROES))
		return tw_error_create(
			TW_GAP, "block %llu was overwritten unseen", (unsigned long long)block);
	*out = write->payload ? write->payload + (at - write->offset) : zeroes;
	return NULL;
}

/* The content was left out, since the block was not known to be metadata when it was written: then
 * it was committed meanwhile, and this is its checkpoint. */
static bool is_unseen_checkpoint(
	const struct ext4 *fs, const struct tw_write *write, uint64_t block)
{
	return !write->payload && !(write->flags & TW_RECORD_ZEROES) && !offline(fs) &&
	       ext4_block_find(fs->recent, block);
}

static struct tw_error *metadata_written(struct ext4 *fs, const struct tw_owner *owner,
	const struct tw_write *write, uint64_t first, uint64_t end)
{
	/* What a resync has read was ahead of the stream. While the log is in use, it says what a
	 * block holds; and the block may have been a file's when this was written. */
	if (write->told && owner->kind != TW_OWNER_JOURNAL && !offline(fs))
		return NULL;
	for (uint64_t block = first; block < end; block++) {
		const uint8_t *data;
		if (owner->kind != TW_OWNER_JOURNAL && is_unseen_checkpoint(fs, write, block))
			continue;
		TW_TRY(block_content(fs, write, block, &data));
		if (owner->kind == TW_OWNER_JOURNAL)
			TW_TRY(ext4_journal_block(fs,
				owner->lblk + (uint32_t)(block - owner->block), data, write->time));
		else
			TW_TRY(home_block(fs, owner, block, data, write->time));
	}
	return NULL;
}

/* True when a write of a file's block is the checkpoint of what the log had. */
static bool is_data_checkpoint(struct ext4 *fs, const struct tw_write *write, uint64_t block)
{
	const struct ext4_block *recent = ext4_block_find(fs->recent, block);
	uint64_t at = block << fs->geo.blockbits, end = at + fs->geo.blocksize;
	if (is_unseen_checkpoint(fs, write, block))
		return true;
	if (!recent || !write->payload || write->offset > at || write->offset + write->length < end)
		return false;
	bool same = recent->digest ==
		    ext4_digest(write->payload + (at - write->offset), fs->geo.blocksize);
	ext4_block_drop(&fs->recent, block);
	return same;
}

/* The part of a write that covers blocks [first, stop) of a file. */
static struct tw_error *file_written(struct ext4 *fs, const struct tw_owner *owner,
	const struct tw_write *write, uint64_t first, uint64_t stop)
{
	uint64_t from = first << fs->geo.blockbits, to = stop << fs->geo.blockbits;
	uint64_t end = write->offset + write->length;
	from = from > write->offset ? from : write->offset;
	to = to < end ? to : end;
	if (write->told)
		return NULL;
	if (!fs->data_logged)
		return data_written(fs, owner, from, to);
	for (uint64_t block = first; block < stop; block++) {
		uint64_t at = block << fs->geo.blockbits, next = at + fs->geo.blocksize;
		if (!is_data_checkpoint(fs, write, block))
			TW_TRY(data_written(
				fs, owner, at > from ? at : from, next < to ? next : to));
	}
	return NULL;
}

static bool is_metadata(enum tw_owner_kind kind)
{
	return kind == TW_OWNER_JOURNAL || kind == TW_OWNER_TABLE || kind == TW_OWNER_DIR ||
	       kind == TW_OWNER_NODE || kind == TW_OWNER_SYMLINK;
}

/* Keeps what was written to blocks that are no metadata as far as is known, within a bound. */
static struct tw_error *early_written(
	struct ext4 *fs, const struct tw_write *write, uint64_t first, uint64_t end)
{
	if (!offline(fs) || !write->payload)
		return NULL;
	for (uint64_t block = first; block < end; block++) {
		const uint8_t *data;
		uint64_t at = block << fs->geo.blockbits;
		if (write->offset > at || write->offset + write->length < at + fs->geo.blocksize)
			continue;
		TW_TRY(block_content(fs, write, block, &data));
		if (!fs->journal) {
			TW_TRY(ext4_unjournaled_keep(fs, block, data));
			continue;
		}
		TW_TRY(ext4_block_store(&fs->early, block, 0, data, fs->geo.blocksize));
		if (holds_more(fs, fs->early, MAX_EARLY))
			TW_TRY(ext4_settle(fs, write->time, true));
	}
	return NULL;
}

/* True when file data that went through the log is still expected at its home. */
static bool has_checkpoint(const struct ext4 *fs, uint64_t block, uint64_t end)
{
	for (; fs->data_logged && block < end; block++)
		if (ext4_block_find(fs->recent, block))
			return true;
	return false;
}

bool ext4_wants(void *arg, uint64_t offset, uint64_t length)
{
	struct ext4 *fs = arg;
	uint64_t block = offset >> fs->geo.blockbits;
	uint64_t end = (offset + length + fs->geo.blocksize - 1) >> fs->geo.blockbits;
	struct tw_owner owner;
	if ((offset < SB_AT + SB_BYTES && offset + length > SB_AT) || offline(fs))
		return true;
	while (block < end &&
		tw_owners_find(tw_view_owners(fs->view), block, end - block, &owner)) {
		uint64_t stop = owner.block + owner.count;
		if (is_metadata(owner.kind) ||
			(owner.kind == TW_OWNER_DATA &&
				has_checkpoint(fs, block, stop < end ? stop : end)))
			return true;
		block = stop;
	}
	return false;
}

/* Tools may be at work, or what goes through the log is file data, whose home may be anywhere. */
bool ext4_wants_all(void *arg)
{
	const struct ext4 *fs = arg;
	return offline(fs) || fs->data_logged;
}

static struct tw_error *follow(struct ext4 *fs, const struct tw_write *write)
{
	uint64_t to = write->offset + write->length;
	uint64_t block = write->offset >> fs->geo.blockbits;
	uint64_t end = (to + fs->geo.blocksize - 1) >> fs->geo.blockbits;
	struct tw_owner owner;
	while (block < end) {
		if (!tw_owners_find(tw_view_owners(fs->view), block, end - block, &owner))
			return early_written(fs, write, block, end);
		uint64_t first = owner.block > block ? owner.block : block;
		TW_TRY(early_written(fs, write, block, first));
		uint64_t stop = owner.block + owner.count < end ? owner.block + owner.count : end;
		if (owner.kind == TW_OWNER_DATA) {
			TW_TRY(file_written(fs, &owner, write, first, stop));
			/* Its file may be gone, and a directory have taken the block. */
			TW_TRY(early_written(fs, write, first, stop));
		} else if (is_metadata(owner.kind))
			TW_TRY(metadata_written(fs, &owner, write, first, stop));
		else
			TW_TRY(early_written(fs, write, first, stop));
		block = stop;
	}
	return NULL;
}

struct tw_error *ext4_write(void *arg, const struct tw_write *write)
{
	struct ext4 *fs = arg;
	/* Only free blocks are discarded, and a block is freed by a transaction. What reads as
	 * zeroes afterwards may have been a request for zeroes, which a backend serves by
	 * discarding. */
	bool undefined = write->flags & TW_RECORD_DISCARD && !(write->flags & TW_RECORD_ZEROES);
	if (undefined || !write->length)
		return NULL;
	/* A recovery may have begun, and what has been told is not looked at. */
	if (write->told && ext4_fast_counts(fs))
		TW_TRY(ext4_fast_missed(fs, write->offset, write->length));
	TW_TRY(superblock_written(fs, write));
	return follow(fs, write);
}

struct tw_error *ext4_direct_apply(struct ext4 *fs, struct tw_time now)
{
	struct ext4_blockset *blocks = ext4_blockset_create();
	struct tw_error *err = blocks ? NULL : tw_error_nomem();
	struct ext4_block *direct, *next;
	HASH_ITER (hh, fs->direct, direct, next) {
		if (!err)
			err = ext4_blockset_add(blocks, direct->block, direct->data);
		ext4_block_drop(&fs->fast_blocks, direct->block);
	}
	struct tw_commit commit = {now, now, 0, false};
	if (!err)
		err = ext4_apply(fs, blocks, &commit);
	ext4_block_clear(&fs->direct);
	ext4_block_clear(&fs->early);
	ext4_blockset_destroy(blocks);
	return err;
}

/* The guest flushes before each commit block, and before the last block of a fast commit: the data
 * belongs to what is committed then. */
static bool holds_back(struct ext4 *fs)
{
	bool flushed = fs->flushed;
	if (!tw_jbd2_fast_blocks(fs->journal))
		return false;
	fs->flushed = true;
	/* A recovery that replays fast commits is not done before the log begins anew. */
	return !flushed || (fs->fast_applied && fs->direct);
}

struct tw_error *ext4_settle(void *arg, struct tw_time now, bool last)
{
	struct ext4 *fs = arg;
	if (!fs->journal)
		return fs->data_waits || fs->direct ? ext4_unjournaled_settle(fs, now, last) : NULL;
	if (tw_jbd2_stalled(fs->journal))
		return tw_error_create(TW_GAP, "blocks of transaction %u are missing",
			tw_jbd2_position(fs->journal).sequence);
	if (!fs->data_waits && !fs->direct) {
		ext4_block_clear(&fs->early);
		return NULL;
	}
	if (!last && (tw_jbd2_underway(fs->journal) || holds_back(fs)))
		return NULL;
	return ext4_direct_apply(fs, now);
}
