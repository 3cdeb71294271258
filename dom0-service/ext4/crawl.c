/* SPDX-License-Identifier: BSD-3-Clause */
#include "ext4/ext4.h"

#include <stdlib.h>
#include <sys/stat.h>

/* The volume as it would be after the guest's recovery: newer blocks from the journal on top. */
struct replayed {
	const struct tw_source *below;
	uint32_t blockbits;
	struct ext4_replay log;
};

static struct tw_error *read_replayed(void *arg, uint64_t offset, void *buf, size_t len)
{
	const struct replayed *r = arg;
	TW_TRY(tw_source_read(r->below, offset, buf, len));
	uint64_t first = offset >> r->blockbits, last = (offset + len - 1) >> r->blockbits;
	uint64_t size = 1ull << r->blockbits;
	for (uint64_t block = first; r->log.blocks && block <= last; block++) {
		const struct ext4_block *newer = ext4_block_find(r->log.blocks, block);
		if (!newer)
			continue;
		uint64_t at = block << r->blockbits;
		uint64_t from = at > offset ? at : offset;
		uint64_t to = at + size < offset + len ? at + size : offset + len;
		memcpy((uint8_t *)buf + (from - offset), newer->data + (from - at), to - from);
	}
	return NULL;
}

static void soon_replayed(void *arg, uint64_t offset, uint64_t len)
{
	const struct replayed *r = arg;
	tw_source_soon(r->below, offset, len);
}

static struct tw_error *replay_journal(struct ext4 *fs, struct replayed *r)
{
	while (fs->journal) {
		struct tw_jbd2_transaction txn;
		bool ready;
		TW_TRY(tw_jbd2_next(fs->journal, true, &ready, &txn));
		if (!ready)
			break;
		struct tw_error *err = ext4_replay_take(&fs->geo, &txn, &r->log);
		tw_jbd2_release(fs->journal, &txn);
		TW_TRY(err);
	}
	ext4_replay_drop_revoked(&r->log);
	return NULL;
}

struct tw_error *ext4_load_inode(
	struct ext4 *fs, uint32_t ino, struct tw_span raw, struct ext4_reader *reader, bool claim)
{
	struct ext4_inode now;
	struct tw_inode *inode;
	ext4_inode_decode(raw, &now);
	if (!ext4_inode_tracked(&fs->geo, &now))
		return NULL;
	TW_TRY(ext4_attrs_xattrs(fs, ino, &now, reader));
	TW_TRY(tw_view_inode_add(fs->view, ino, &inode));
	TW_TRY(tw_view_set_attr(fs->view, inode, &now.attr));
	struct ext4_remap remap = {.ino = ino,
		.flags = now.flags,
		.sectors = now.sectors,
		.mode = now.attr.mode,
		.old_mode = now.attr.mode,
		.fast_symlink = ext4_inode_fast_symlink(&now)};
	memcpy(remap.root, now.map, sizeof(remap.root));
	if (now.flags & EXT4_INLINE_DATA_FL)
		remap.inlined = ext4_inline_digest(&now);
	struct tw_error *err = ext4_remap_walk(fs, &remap, reader);
	if (!err)
		err = claim ? ext4_remap_move(fs, &remap, reader)
			    : ext4_remap_keep(fs, &remap, reader);
	ext4_map_deinit(&remap.map);
	TW_TRY(err);
	return ext4_attrs_target(fs, &now, ino, reader);
}

struct tw_error *ext4_claim_tables(struct ext4 *fs)
{
	for (uint32_t g = 0; g < fs->geo.ngroups; g++) {
		struct tw_owner table = {fs->geo.itable[g], fs->geo.itable_blocks, 0,
			g * fs->geo.itable_blocks, TW_OWNER_TABLE};
		TW_TRY(tw_owners_set(tw_view_owners(fs->view), &table));
	}
	return NULL;
}

static struct tw_error *crawl_tree(struct ext4 *fs, const struct tw_source *source)
{
	struct tw_error *err = ext4_load_tree(fs, source);
	if (!err && !tw_view_inode(fs->view, EXT4_ROOT_INO))
		err = tw_error_create(TW_BAD_DATA, "the file system has no root directory");
	return err;
}

/* The journal's mapping and superblock; recovery never changes them. */
static struct tw_error *open_journal(struct ext4 *fs)
{
	const struct ext4_geometry *geo = &fs->geo;
	uint8_t raw[1024], *sb = NULL;
	uint32_t group = (geo->journal_ino - 1) / geo->inodes_per_group;
	uint32_t slot = (geo->journal_ino - 1) % geo->inodes_per_group;
	if (group >= geo->ngroups)
		return tw_error_create(TW_BAD_DATA, "the journal's inode does not exist");
	size_t len = geo->inode_size < sizeof(raw) ? geo->inode_size : sizeof(raw);
	TW_TRY(tw_source_read(&fs->env.source,
		(geo->itable[group] << geo->blockbits) + (uint64_t)slot * geo->inode_size, raw,
		len));
	struct ext4_reader reader = {.geo = geo, .source = &fs->env.source};
	struct tw_error *err =
		ext4_load_inode(fs, geo->journal_ino, tw_span(raw, len), &reader, true);
	ext4_reader_deinit(&reader);
	TW_TRY(err);
	sb = malloc(geo->blocksize);
	if (!sb)
		return tw_error_nomem();
	err = ext4_journal_load(fs, 0, sb);
	if (!err)
		err = tw_jbd2_create(tw_span(sb, geo->blocksize), geo->blocksize, ext4_journal_load,
			fs, &fs->journal);
	free(sb);
	return err;
}

/* The guest will checkpoint what was replayed. */
static struct tw_error *expect_checkpoints(struct ext4 *fs, const struct replayed *r)
{
	struct ext4_block *block, *next, *recent;
	HASH_ITER (hh, r->log.blocks, block, next) {
		TW_TRY(ext4_block_get(&fs->recent, block->block, &recent));
		recent->digest = ext4_digest(block->data, fs->geo.blocksize);
	}
	fs->data_logged = ext4_data_expected(fs);
	return NULL;
}

static struct tw_error *crawl_replayed(struct ext4 *fs, struct replayed *r)
{
	TW_TRY(replay_journal(fs, r));
	struct tw_source source = {.read = read_replayed,
		.arg = r,
		.bytes = fs->env.source.bytes,
		.parallel = fs->env.source.parallel,
		.soon = soon_replayed};
	if (r->log.blocks) {
		ext4_geometry_deinit(&fs->geo);
		TW_TRY(ext4_geometry_read(&source, &fs->geo));
	}
	TW_TRY(tw_source_read(&source, EXT4_SUPERBLOCK_AT, fs->superblock, sizeof(fs->superblock)));
	TW_TRY(crawl_tree(fs, &source));
	return expect_checkpoints(fs, r);
}

struct tw_error *ext4_crawl(struct ext4 *fs)
{
	TW_TRY(ext4_geometry_read(&fs->env.source, &fs->geo));
	TW_TRY(tw_view_create(
		fs->geo.ninodes, EXT4_ROOT_INO, fs->geo.nblocks, fs->geo.blockbits, &fs->view));
	if (fs->geo.journal_ino)
		TW_TRY(open_journal(fs));
	struct replayed r = {.below = &fs->env.source, .blockbits = fs->geo.blockbits};
	struct tw_error *err = crawl_replayed(fs, &r);
	ext4_replay_deinit(&r.log);
	return err;
}
