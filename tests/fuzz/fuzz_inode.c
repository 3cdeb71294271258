/* SPDX-License-Identifier: BSD-3-Clause */
/* Input: a byte that says how long the inode is, the inode, then an extended attribute block. */
#include "ext4/ext4.h"
#include "input.h"

#include <stdlib.h>

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
	const struct ext4_geometry geo = { .ninodes = 4096 };
	ext4_inode_tracked(&geo, &inode);
	free(raw);
	ext4_xattrs_digest(ext4_xattrs_of_block(tw_span(in.data, in.size)));
	return 0;
}
