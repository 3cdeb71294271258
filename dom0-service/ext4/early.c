/* SPDX-License-Identifier: BSD-3-Clause */
/* What was written to a block that is nobody's may turn out to be metadata: a volume without a
 * journal keeps what could be. */
#include "ext4/ext4.h"

/* So many bytes are kept; the oldest go first. */
#define MAX_KEPT (64u << 20)

bool ext4_entries_hold(const struct ext4_geometry *geo, struct tw_span s)
{
	size_t off = 0;
	while (off + 8 <= s.len) {
		size_t len = tw_le16(s, off + 4), name = tw_u8(s, off + 6);
		if (len == 0 || len == 0xffff)
			len = 65536;
		if (tw_le32(s, off) > geo->ninodes || len % 4 || len < 8 + name || len < 12 ||
			len > s.len - off)
			return false;
		off += len;
	}
	return off == s.len;
}

bool ext4_is_block_of(const struct ext4_geometry *geo, struct tw_span s, uint32_t dir)
{
	bool dot = tw_u8(s, 6) == 1 && tw_u8(s, 8) == '.';
	return ext4_entries_hold(geo, s) && (!dot || tw_le32(s, 0) == dir);
}

/* A block of pointers may hold none any more, but only where files are mapped by such blocks. */
static bool pointers_hold(const struct ext4 *fs, struct tw_span s)
{
	enum { S_INCOMPAT = 0x60, HAS_EXTENTS = 0x40 };
	uint32_t incompat = tw_le32(tw_span(fs->superblock, sizeof(fs->superblock)), S_INCOMPAT);
	bool any = !(incompat & HAS_EXTENTS);
	for (size_t off = 0; off < s.len; off += 4) {
		uint32_t block = tw_le32(s, off);
		if (block && (block >= fs->geo.nblocks || block < fs->geo.first_data_block))
			return false;
		any = any || block;
	}
	return any;
}

/* The target of a symlink, longer than an inode holds. Behind it may stand anything. */
static bool text_holds(struct tw_span s)
{
	const uint8_t *end = memchr(s.data, '\0', s.len);
	if (!end || end - s.data < EXT4_MAP_BYTES)
		return false;
	for (size_t i = 0; i < EXT4_MAP_BYTES; i++)
		if (s.data[i] < ' ' && !strchr("\t\n\r", s.data[i]))
			return false;
	return true;
}

bool ext4_may_be_metadata(const struct ext4 *fs, const uint8_t *data)
{
	enum { EXTENT_MAGIC = 0xf30a };
	const uint32_t xattr_magic = 0xea020000;
	struct tw_span s = tw_span(data, fs->geo.blocksize);
	return tw_le16(s, 0) == EXTENT_MAGIC || tw_le32(s, 0) == xattr_magic ||
	       ext4_entries_hold(&fs->geo, s) || pointers_hold(fs, s) || text_holds(s);
}

struct tw_error *ext4_unjournaled_keep(struct ext4 *fs, uint64_t block, const uint8_t *data)
{
	ext4_block_drop(&fs->early, block);
	if (!ext4_may_be_metadata(fs, data))
		return NULL;
	if ((uint64_t)HASH_COUNT(fs->early) << fs->geo.blockbits >= MAX_KEPT)
		ext4_block_drop(&fs->early, fs->early->block);
	return ext4_block_store(&fs->early, block, 0, data, fs->geo.blocksize);
}
