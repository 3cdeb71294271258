/* SPDX-License-Identifier: BSD-3-Clause */
/* Input: a byte that says how long the inode is, the inode, then an extended attribute block. */
#include "ext4/ext4.h"
#include "input.h"

#include <stdlib.h>

/* What lies in the inode: entries of a directory, among others. */
static void use_inline(const struct ext4_geometry *geo, struct tw_span raw, const struct ext4_inode *inode)
{
	for (unsigned i = 0; i < EXT4_INLINE_PARTS; i++) {
		struct tw_span part = ext4_inline_part(inode, i);
		struct ext4_dirent entry;
		size_t off = 0;
		if (i && part.len && (part.data < raw.data || part.data + part.len > raw.data + raw.len))
			abort();
		while (ext4_dirent_next(geo, part, i, &off, &entry))
			if (entry.bytes < part.data || entry.bytes + entry.len > part.data + part.len)
				abort();
	}
	ext4_inline_digest(inode);
}

/* The inode's attributes and the block's, named. */
static void use_attributes(struct tw_span rest, struct tw_span block)
{
	struct ext4_xattr_sets *sets = NULL;
	struct ext4_xattr_diff diff = { 0 };
	struct ext4_xattrs in_block = ext4_xattrs_of_block(block), in_inode = ext4_xattrs_of_inode(rest);
	uint64_t shared = ext4_xattrs_digest(in_block), all = shared + ext4_xattrs_digest(in_inode);
	if (ext4_xattr_sets_keep(&sets, shared, in_block, 0) ||
		ext4_xattr_sets_keep(&sets, all, in_inode, shared) ||
		ext4_xattr_sets_diff(sets, NULL, shared, all, &diff))
		abort();
	for (size_t i = 0; i < diff.nset + diff.nremoved; i++)
		if ((const char *)diff.names[i].data + diff.names[i].len > diff.text.data + diff.text.len)
			abort();
	ext4_xattr_diff_deinit(&diff);
	ext4_xattr_sets_destroy(sets);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const size_t lengths[] = { 128, 256, 512, 160 };
	struct input in = { data, size };
	struct ext4_inode inode;
	size_t len = lengths[take(&in, 1) % 4];
	uint8_t *raw = calloc(1, len);
	if (!raw)
		return 0;
	take_bytes(&in, raw, len);
	ext4_inode_decode(tw_span(raw, len), &inode);
	if (ext4_inode_fast_symlink(&inode) && inode.attr.size >= EXT4_MAP_BYTES)
		abort();
	const struct ext4_geometry geo = { .ninodes = 4096, .first_ino = 11 };
	ext4_inode_tracked(&geo, &inode);
	use_inline(&geo, tw_span(raw, len), &inode);
	use_attributes(inode.rest, tw_span(in.data, in.size));
	free(raw);
	return 0;
}
