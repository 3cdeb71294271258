/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Reads again what was missed, and no more: the metadata whose blocks were written, what the log
 * holds of later transactions, and what either leads to (the mapping of an inode that changed, the
 * blocks of a new directory). Nothing of the view is moved.
 *
 * While the journal is in use, the guest may go on: a block is read at its home first and the log
 * is read last, and the log still holds all that was committed since the first look. So whatever
 * the guest committed while we read is in the log, and a copy there counts before what is at home.
 * What comes of it is the last commit in the log, as after a recovery. (docs/architecture.md, Gaps)
 */
#include "ext4/gather.h"

#include "base/pack.h"

#include <stdlib.h>
#include <sys/stat.h>

/* More than this is better read in order, by a crawl. */
#define MAX_GATHERED (128u << 20)
/* Without a transaction that brings them, blocks that are nobody's may be metadata soon. So many
 * bytes of those that were written are looked at. */
#define MAX_LOOKED_AT (64u << 20)

/* The log is looked at after so many blocks. */
#define BLOCKS_A_PULL 1024u

struct tw_error *ext4_gather_check_size(const struct ext4_gather *g)
{
	uint64_t blocks = (uint64_t)HASH_COUNT(g->homes) + HASH_COUNT(g->log.blocks) +
			  HASH_COUNT(g->fast);
	if (blocks << g->fs->geo.blockbits <= MAX_GATHERED)
		return NULL;
	return tw_error_create(TW_GAP, "so much was written that a crawl is faster");
}

/* --- blocks at home --- */

bool ext4_gather_is_dirty(const struct ext4_gather *g, uint64_t block)
{
	const struct ext4_geometry *geo = &g->fs->geo;
	uint64_t at = block << geo->blockbits;
	return tw_missed_hits(g->missed, at, geo->blocksize) ||
	       tw_missed_hits(&g->fs->fast_missed, at, geo->blocksize);
}

/* The content of a block, read where it is not known. */
static struct tw_error *need(struct ext4_gather *g, uint64_t block, const uint8_t **out)
{
	const struct ext4_block *known = ext4_block_find(g->log.blocks, block);
	uint32_t size = g->fs->geo.blocksize;
	if (!known)
		known = ext4_block_find(g->homes, block);
	if (!known) {
		g->fresh = true;
		TW_TRY(tw_source_read(
			&g->fs->env.source, block << g->fs->geo.blockbits, g->buf, size));
		TW_TRY(ext4_block_store(&g->homes, block, 0, g->buf, size));
		TW_TRY(ext4_gather_check_size(g));
		known = ext4_block_find(g->homes, block);
	}
	*out = known->data;
	return NULL;
}

/* The same for a node, which the view may have. */
static struct tw_error *read_node(void *arg, uint64_t block, const uint8_t **out)
{
	struct ext4_gather *g = arg;
	const struct ext4_block *node = ext4_block_find(g->fs->nodes, block);
	bool changed = ext4_block_find(g->log.blocks, block) ||
		       (!g->onward && (ext4_gather_is_dirty(g, block) ||
					      ext4_block_find(g->homes, block)));
	if (!node || changed)
		return need(g, block, out);
	*out = node->data;
	return NULL;
}

/* What may turn out to be metadata, and came without a transaction. */
static struct tw_error *look_at_unowned(struct ext4_gather *g, uint64_t block, uint64_t end)
{
	uint32_t size = g->fs->geo.blocksize;
	for (; !g->live && block < end && g->looked_at < MAX_LOOKED_AT; block++) {
		g->looked_at += size;
		TW_TRY(tw_source_read(
			&g->fs->env.source, block << g->fs->geo.blockbits, g->buf, size));
		if (ext4_may_be_metadata(g->fs, g->buf))
			TW_TRY(ext4_block_store(&g->early, block, 0, g->buf, size));
	}
	return NULL;
}

static struct tw_error *dirty_interval(
	struct ext4_gather *g, const struct tw_owner *owner, uint64_t first, uint64_t end)
{
	const uint8_t *data;
	switch (owner->kind) {
	case TW_OWNER_TABLE:
	case TW_OWNER_DIR:
	case TW_OWNER_NODE:
	case TW_OWNER_SYMLINK:
		for (; first < end; first++)
			TW_TRY(need(g, first, &data));
		return NULL;
	case TW_OWNER_DATA:
	case TW_OWNER_UNWRITTEN:
		return look_at_unowned(g, first, end);
	default:
		return NULL;
	}
}

static struct tw_error *dirty_range(struct ext4_gather *g, const struct tw_range *range)
{
	const struct ext4_geometry *geo = &g->fs->geo;
	uint64_t block = range->offset >> geo->blockbits;
	uint64_t end = (range->offset + range->length + geo->blocksize - 1) >> geo->blockbits;
	struct tw_owner owner;
	end = end < geo->nblocks ? end : geo->nblocks;
	while (block < end && tw_owners_find(
				      tw_view_owners(g->fs->view), block, end - block, &owner)) {
		uint64_t first = owner.block > block ? owner.block : block;
		uint64_t stop = owner.block + owner.count < end ? owner.block + owner.count : end;
		TW_TRY(look_at_unowned(g, block, first));
		TW_TRY(dirty_interval(g, &owner, first, stop));
		block = stop;
	}
	return block < end ? look_at_unowned(g, block, end) : NULL;
}

/* Extended attributes are in nobody's blocks. */
static struct tw_error *dirty_xattrs(struct ext4_gather *g)
{
	const uint8_t *data;
	for (const struct ext4_block *b = g->fs->xattrs; b; b = b->hh.next)
		if (b->ino && ext4_gather_is_dirty(g, b->block))
			TW_TRY(need(g, b->block, &data));
	return NULL;
}

/* What was written in place before, and not applied yet. */
static struct tw_error *direct_homes(struct ext4_gather *g)
{
	for (const struct ext4_block *b = g->fs->direct; g->fs->journal && b; b = b->hh.next)
		if (!ext4_gather_is_dirty(g, b->block))
			TW_TRY(ext4_block_store(
				&g->homes, b->block, 0, b->data, g->fs->geo.blocksize));
	return NULL;
}

/* Where the view is ahead of the blocks at home by fast commits that have ended: what those were, a
 * recovery has written there, or a commit, or they never came to anything. */
static struct tw_error *fast_homes(struct ext4_gather *g)
{
	const uint8_t *data;
	for (const struct ext4_block *b = g->fs->fast_blocks; b; b = b->hh.next)
		TW_TRY(need(g, b->block, &data));
	return NULL;
}

static struct tw_error *dirty_ranges(struct ext4_gather *g, const struct tw_missed *missed)
{
	size_t pulled = 0;
	for (size_t i = 0; i < missed->n && !g->again; i++) {
		TW_TRY(dirty_range(g, &missed->ranges[i]));
		/* Before the guest overwrites what it commits meanwhile. */
		if (!g->live || HASH_COUNT(g->homes) - pulled < BLOCKS_A_PULL)
			continue;
		pulled = HASH_COUNT(g->homes);
		TW_TRY(ext4_gather_pull(g));
	}
	return NULL;
}

/* While the log goes back to the last commit, what was written at home is in it, or as it was. But a
 * recovery may have written there in this gap and in those before. */
static struct tw_error *dirty_homes(struct ext4_gather *g)
{
	if (g->onward)
		return NULL;
	TW_TRY(dirty_ranges(g, g->missed));
	TW_TRY(dirty_ranges(g, &g->fs->fast_missed));
	TW_TRY(direct_homes(g));
	TW_TRY(fast_homes(g));
	return dirty_xattrs(g);
}

/* --- what that leads to --- */

static struct tw_error *follow_dir(
	struct ext4_gather *g, uint32_t ino, const struct ext4_map *map)
{
	const uint8_t *data;
	for (uint32_t i = 0; i < map->n; i++)
		for (uint32_t k = 0; k < map->extents[i].count; k++) {
			uint64_t block = map->extents[i].block + k;
			if (!ext4_dirs_owns(g->fs, ino, block))
				TW_TRY(need(g, block, &data));
		}
	return NULL;
}

/* More blocks than there are would be a guest's nonsense, and take for ever. */
static struct tw_error *check_dir(
	const struct ext4_gather *g, uint32_t ino, const struct ext4_map *map)
{
	uint64_t blocks = 0;
	for (uint32_t i = 0; i < map->n; i++)
		blocks += map->extents[i].count;
	if (blocks <= g->fs->geo.nblocks)
		return NULL;
	return tw_error_create(TW_GAP, "directory %u has more blocks than the volume", ino);
}

/* A mapping that may be another one. */
static struct tw_error *follow_map(struct ext4_gather *g, uint32_t ino, uint16_t mode,
	uint32_t flags, const uint8_t *root)
{
	struct ext4_map map = {0};
	const uint8_t *data;
	struct tw_error *err =
		ext4_map_walk(&g->fs->geo, ino, flags, root, read_node, g, &map);
	if (!err && S_ISDIR(mode))
		err = check_dir(g, ino, &map);
	if (!err && S_ISDIR(mode))
		err = follow_dir(g, ino, &map);
	/* Without a journal a target may be written after its inode, and is waited for. */
	bool written = map.n && (g->journal || ext4_gather_is_dirty(g, map.extents[0].block));
	if (!err && S_ISLNK(mode) && written)
		err = need(g, map.extents[0].block, &data);
	ext4_map_deinit(&map);
	/* A guest's nonsense is told of when it is applied. */
	if (!err || tw_error_code(err) != TW_BAD_DATA)
		return err;
	tw_error_destroy(err);
	return NULL;
}

static bool has_map(const struct ext4_inode *now)
{
	if (now->flags & EXT4_INLINE_DATA_FL)
		return false;
	return S_ISREG(now->attr.mode) || S_ISDIR(now->attr.mode) ||
	       (S_ISLNK(now->attr.mode) && !ext4_inode_fast_symlink(now));
}

static struct tw_error *follow_slot(struct ext4_gather *g, uint32_t ino, struct tw_span raw)
{
	struct ext4 *fs = g->fs;
	const struct tw_inode *inode = tw_view_inode(fs->view, ino);
	struct ext4_inode now;
	const uint8_t *data;
	ext4_inode_decode(raw, &now);
	if (ino == fs->geo.journal_ino && !(inode && ext4_same_mapping(fs, inode, &now)))
		return tw_error_create(TW_GAP, "the journal was made anew");
	if ((ino < fs->geo.first_ino && ino != EXT4_ROOT_INO) || ino > fs->geo.ninodes ||
		!ext4_inode_tracked(&fs->geo, &now))
		return NULL;
	if (now.file_acl && now.file_acl < fs->geo.nblocks &&
		!ext4_block_find(fs->xattrs, now.file_acl))
		TW_TRY(need(g, now.file_acl, &data));
	struct tw_attr was = inode ? tw_view_attr(fs->view, inode) : (struct tw_attr){0};
	bool same = inode && was.generation == now.attr.generation &&
		    (was.mode & S_IFMT) == (now.attr.mode & S_IFMT) &&
		    ext4_same_mapping(fs, inode, &now);
	if (same || !has_map(&now))
		return NULL;
	return follow_map(g, ino, now.attr.mode, now.flags, now.map);
}

static struct tw_error *follow_table(struct ext4_gather *g, uint64_t block, const uint8_t *data)
{
	const struct ext4_geometry *geo = &g->fs->geo;
	uint32_t ino, n = ext4_geometry_itable(geo, block, &ino);
	for (uint32_t i = 0; i < n; i++)
		TW_TRY(follow_slot(g, ino + i,
			tw_span(data + (size_t)i * geo->inode_size, geo->inode_size)));
	return NULL;
}

static struct tw_error *follow_block(struct ext4_gather *g, const struct ext4_block *b)
{
	struct tw_owner owner;
	if (!tw_owners_find(tw_view_owners(g->fs->view), b->block, 1, &owner))
		return NULL;
	if (owner.kind == TW_OWNER_TABLE)
		return follow_table(g, b->block, b->data);
	const struct ext4_root *root =
		owner.kind == TW_OWNER_NODE ? ext4_root_find(g->fs, owner.ino) : NULL;
	const struct tw_inode *inode = root ? tw_view_inode(g->fs->view, owner.ino) : NULL;
	if (!inode)
		return NULL;
	return follow_map(g, owner.ino, tw_view_mode(g->fs->view, inode), root->flags, root->map);
}

/* What is read on the way goes to the end of the table, and leads nowhere: no table is among it. */
static struct tw_error *follow_all(struct ext4_gather *g)
{
	for (const struct ext4_block *b = g->log.blocks; b; b = b->hh.next)
		TW_TRY(follow_block(g, b));
	for (const struct ext4_block *b = g->homes; b; b = b->hh.next)
		if (!ext4_block_find(g->log.blocks, b->block))
			TW_TRY(follow_block(g, b));
	return NULL;
}

/* Until a look leads to nothing that is not known, with the log as it is then. */
static struct tw_error *look(struct ext4_gather *g)
{
	TW_TRY(dirty_homes(g));
	do {
		g->fresh = false;
		TW_TRY(follow_all(g));
		if (!g->again && g->live)
			TW_TRY(ext4_gather_pull(g));
		if (!g->again && g->live && !g->fresh)
			TW_TRY(ext4_gather_fast(g));
	} while (g->fresh && !g->again);
	return NULL;
}

/* --- what is found --- */

/* The superblock of the file system as it is now. */
static struct tw_error *find_superblock(struct ext4_gather *g, uint8_t *out)
{
	enum { S_MKFS_TIME = 0x108 };
	struct ext4 *fs = g->fs;
	uint64_t block = EXT4_SUPERBLOCK_AT >> fs->geo.blockbits;
	uint32_t at = EXT4_SUPERBLOCK_AT - (uint32_t)(block << fs->geo.blockbits);
	const struct ext4_block *logged = ext4_block_find(g->log.blocks, block);
	bool known = g->onward && ext4_block_find(fs->recent, block);
	memcpy(out, fs->superblock, EXT4_SUPERBLOCK_BYTES);
	if (logged)
		memcpy(out, logged->data + at, EXT4_SUPERBLOCK_BYTES);
	else if (!known && ext4_gather_is_dirty(g, block))
		TW_TRY(tw_source_read(&fs->env.source, EXT4_SUPERBLOCK_AT, out,
			EXT4_SUPERBLOCK_BYTES));
	const char *what = ext4_geometry_changed(&fs->geo, tw_span(out, EXT4_SUPERBLOCK_BYTES));
	/* Without another identity, mkfs leaves tables as they were where no inode is. */
	if (memcmp(out + S_MKFS_TIME, fs->superblock + S_MKFS_TIME, 4))
		what = "the volume was formatted";
	return what ? tw_error_create(TW_GAP, "%s", what) : NULL;
}

static void pack_blocks(struct tw_buf *out, const struct ext4_block *table, uint32_t blocksize)
{
	tw_pack64(out, HASH_COUNT(table));
	for (const struct ext4_block *b = table; b; b = b->hh.next) {
		tw_pack64(out, b->block);
		tw_buf_append(out, b->data, blocksize);
	}
}

static void pack_journal(struct tw_buf *out, const struct ext4_gather *g)
{
	tw_pack32(out, g->journal != NULL);
	if (!g->journal)
		return;
	struct tw_span sb = tw_jbd2_superblock(g->journal);
	struct tw_jbd2_position position = tw_jbd2_position(g->journal);
	tw_pack_bytes(out, sb.data, sb.len);
	tw_pack32(out, position.head);
	tw_pack32(out, position.sequence);
	/* The stream is behind the log: where it will tell what is known already. */
	tw_pack32(out, g->live && g->start.head != position.head ? g->start.head : 0);
	pack_blocks(out, g->pending, g->fs->geo.blocksize);
}

static struct tw_error *pack(struct ext4_gather *g, struct tw_buf *out)
{
	uint32_t blocksize = g->fs->geo.blocksize;
	char *superblock = tw_buf_reserve(out, EXT4_SUPERBLOCK_BYTES);
	if (!superblock)
		return tw_error_nomem();
	TW_TRY(ext4_gather_pending(g));
	TW_TRY(find_superblock(g, (uint8_t *)superblock));
	out->len += EXT4_SUPERBLOCK_BYTES;
	tw_pack32(out, g->onward);
	pack_journal(out, g);
	pack_blocks(out, g->homes, blocksize);
	pack_blocks(out, g->early, blocksize);
	pack_blocks(out, g->log.blocks, blocksize);
	tw_pack64(out, HASH_COUNT(g->log.revoked));
	for (const struct ext4_block *b = g->log.revoked; b; b = b->hh.next)
		tw_pack64(out, b->block);
	pack_blocks(out, g->fast, blocksize);
	return out->failed ? tw_error_nomem() : NULL;
}

/* --- the module's calls --- */

struct tw_error *ext4_survey(void *arg, void **found, bool *stands)
{
	struct ext4 *fs = arg;
	struct ext4_gather *g = calloc(1, sizeof(*g));
	if (!g)
		return tw_error_nomem();
	g->fs = fs;
	tw_missed_tidy(&fs->fast_missed);
	g->buf = malloc(fs->geo.blocksize);
	g->superblock = malloc(fs->geo.blocksize);
	struct tw_error *err = g->buf && g->superblock ? NULL : tw_error_nomem();
	if (!err && fs->journal)
		err = ext4_gather_open_log(g);
	if (err) {
		ext4_gathered_destroy(g);
		return err;
	}
	g->live = g->journal && tw_jbd2_position(g->journal).head;
	*stands = g->live;
	*found = g;
	return NULL;
}

struct tw_error *ext4_gather(
	void *arg, const struct tw_missed *missed, struct tw_buf *out, bool *again)
{
	struct ext4_gather *g = arg;
	g->missed = missed;
	TW_TRY(ext4_gather_begin_log(g));
	if (!g->again)
		TW_TRY(look(g));
	*again = g->again;
	return g->again ? NULL : pack(g, out);
}

void ext4_gathered_destroy(void *arg)
{
	struct ext4_gather *g = arg;
	if (!g)
		return;
	tw_jbd2_destroy(g->journal);
	ext4_replay_deinit(&g->log);
	ext4_block_clear(&g->homes);
	ext4_block_clear(&g->early);
	ext4_block_clear(&g->pending);
	ext4_block_clear(&g->fast);
	free(g->superblock);
	free(g->buf);
	free(g);
}
