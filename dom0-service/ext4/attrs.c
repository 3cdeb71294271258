/* SPDX-License-Identifier: BSD-3-Clause */
#include "ext4/ext4.h"

#include <sys/stat.h>

struct tw_error *ext4_attrs_xattrs(
	struct ext4 *fs, struct ext4_inode *inode, struct ext4_reader *reader)
{
	const uint8_t *data;
	uint64_t block = inode->file_acl;
	if (!block || block >= fs->geo.nblocks)
		return NULL;
	struct ext4_block *known;
	bool fresh = reader->txn && ext4_blockset_find(reader->txn, block);
	TW_TRY(ext4_block_get(&fs->xattrs, block, &known));
	if (fresh || !known->digest) {
		TW_TRY(ext4_reader_block(reader, block, &data));
		known->digest =
			ext4_xattrs_digest(ext4_xattrs_of_block(tw_span(data, fs->geo.blocksize)));
	}
	inode->attr.xattrs += known->digest;
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
	if (!n || inode->attr.size >= fs->geo.blocksize)
		return NULL;
	TW_TRY(ext4_reader_block(reader, extents[0].block, &data));
	return tw_inode_set_target(view, data, (uint32_t)inode->attr.size);
}
