/* SPDX-License-Identifier: BSD-3-Clause */
#include "ext4/ext4.h"

#include <sys/stat.h>

/* A block that nobody has stays for a while: another inode of the transaction may take it. */
static void let_go(struct ext4 *fs, uint64_t block)
{
	struct ext4_block *known = ext4_block_find(fs->xattrs, block);
	if (known && known->ino && !--known->ino)
		fs->stale_xattrs++;
}

struct tw_error *ext4_attrs_has_block(struct ext4 *fs, uint32_t ino, uint64_t block)
{
	uint64_t was = 0;
	tw_numtab_get(&fs->xattr_block, ino, &was);
	if (was == block)
		return NULL;
	if (was)
		let_go(fs, was);
	if (!block) {
		tw_numtab_drop(&fs->xattr_block, ino);
		return NULL;
	}
	struct ext4_block *known = ext4_block_find(fs->xattrs, block);
	if (known && !known->ino)
		fs->stale_xattrs--;
	TW_TRY(ext4_block_get(&fs->xattrs, block, &known));
	known->ino++;
	return tw_numtab_set(&fs->xattr_block, ino, block);
}

static bool written(const struct ext4_reader *reader, uint64_t block)
{
	return (reader->txn && ext4_blockset_find(reader->txn, block)) ||
	       (reader->early && ext4_block_find(*reader->early, block));
}

struct tw_error *ext4_attrs_xattrs(
	struct ext4 *fs, uint32_t ino, struct ext4_inode *inode, struct ext4_reader *reader)
{
	const uint8_t *data;
	uint64_t block = inode->file_acl < fs->geo.nblocks ? inode->file_acl : 0, shared = 0;
	if (block) {
		bool fresh = !ext4_block_find(fs->xattrs, block) || written(reader, block);
		if (fresh)
			TW_TRY(ext4_reader_block(reader, block, &data));
		TW_TRY(ext4_attrs_has_block(fs, ino, block));
		struct ext4_block *known = ext4_block_find(fs->xattrs, block);
		if (fresh) {
			struct ext4_xattrs list =
				ext4_xattrs_of_block(tw_span(data, fs->geo.blocksize));
			known->digest = ext4_xattrs_digest(list);
			TW_TRY(ext4_xattr_sets_keep(&fs->sets, known->digest, list, 0));
		}
		shared = known->digest;
	} else {
		TW_TRY(ext4_attrs_has_block(fs, ino, 0));
	}
	inode->attr.xattrs += shared;
	return ext4_xattr_sets_keep(
		&fs->sets, inode->attr.xattrs, ext4_xattrs_of_inode(inode->rest), shared);
}

static void mark(void *arg, uint64_t xattrs)
{
	ext4_xattr_sets_mark(arg, xattrs);
}

static void drop_stale_blocks(struct ext4 *fs)
{
	enum { LEAST = 64 };
	struct ext4_block *block, *next;
	if (fs->stale_xattrs <= LEAST + HASH_COUNT(fs->xattrs) / 2)
		return;
	HASH_ITER (hh, fs->xattrs, block, next)
		if (!block->ino)
			ext4_block_drop(&fs->xattrs, block->block);
	fs->stale_xattrs = 0;
}

void ext4_attrs_sweep(struct ext4 *fs)
{
	drop_stale_blocks(fs);
	/* Going through what inodes share must be worth it. */
	if (!ext4_xattr_sets_due(fs->sets, tw_view_commons(fs->view) / 8))
		return;
	tw_view_xattrs(fs->view, mark, fs->sets);
	for (const struct ext4_block *block = fs->xattrs; block; block = block->hh.next)
		ext4_xattr_sets_mark(fs->sets, block->digest);
	ext4_xattr_sets_sweep(fs->sets);
}

struct tw_error *ext4_attrs_names(void *arg, uint64_t old, uint64_t now, struct tw_event *event)
{
	struct ext4 *fs = arg;
	if (old == now)
		return NULL;
	TW_TRY(ext4_xattr_sets_diff(fs->sets, fs->newer_sets, old, now, &fs->diff));
	event->xattrs = fs->diff.names;
	event->nxattrs_set = fs->diff.nset;
	event->nxattrs_removed = fs->diff.nremoved;
	return NULL;
}

struct tw_error *ext4_changeset(struct ext4 *fs)
{
	TW_TRY(tw_changeset_create(fs->view, fs->env.emit, fs->env.arg, &fs->set));
	tw_changeset_set_xattrs(fs->set, ext4_attrs_names, fs);
	return NULL;
}

static struct tw_error *set_inline_target(struct tw_inode *view, const struct ext4_inode *inode)
{
	struct tw_buf target = TW_BUF_INIT;
	uint64_t left = inode->attr.size;
	for (unsigned i = 0; i < EXT4_INLINE_PARTS; i++) {
		struct tw_span part = ext4_inline_part(inode, i);
		size_t len = part.len < left ? part.len : (size_t)left;
		tw_buf_append(&target, part.data, len);
		left -= len;
	}
	struct tw_error *err = target.failed ? tw_error_nomem() : NULL;
	if (!err)
		err = tw_inode_set_target(view, target.data, (uint32_t)target.len);
	tw_buf_deinit(&target);
	return err;
}

struct tw_error *ext4_attrs_target(
	struct ext4 *fs, const struct ext4_inode *inode, uint32_t ino, struct ext4_reader *reader)
{
	struct tw_inode *view = tw_view_inode(fs->view, ino);
	const uint8_t *data;
	if (!view || !S_ISLNK(inode->attr.mode))
		return NULL;
	if (ext4_inode_fast_symlink(inode))
		return tw_inode_set_target(view, inode->map, (uint32_t)inode->attr.size);
	if (inode->flags & EXT4_INLINE_DATA_FL)
		return set_inline_target(view, inode);
	struct tw_extent one;
	uint32_t n;
	const struct tw_extent *extents = tw_inode_extents(view, &one, &n);
	if (!n || !reader || inode->attr.size >= fs->geo.blocksize)
		return NULL;
	TW_TRY(ext4_reader_block(reader, extents[0].block, &data));
	return tw_inode_set_target(view, data, (uint32_t)inode->attr.size);
}
