/* SPDX-License-Identifier: BSD-3-Clause */
#include "ext4/ext4.h"

#include <xxhash.h>

/* attributes.rst: both headers begin with the magic; in an inode the entries follow it at once. */
#define XATTR_MAGIC 0xea020000u
enum {
	IN_INODE_HEADER = 4,
	BLOCK_HEADER = 32,
	E_NAME_LEN = 0,
	E_NAME_INDEX = 1,
	E_VALUE_OFFS = 2,
	E_VALUE_SIZE = 8,
	E_NAME = 16,
};

/* The sum over all entries, so that their order does not count. Value offsets count from base. */
static uint64_t digest_entries(struct tw_span entries, struct tw_span base)
{
	uint64_t sum = 0;
	for (size_t off = 0; tw_le32(entries, off);) {
		size_t name_len = tw_u8(entries, off + E_NAME_LEN);
		struct tw_span name = tw_span_sub(entries, off + E_NAME, name_len);
		struct tw_span value = tw_span_sub(base, tw_le16(entries, off + E_VALUE_OFFS),
			tw_le32(entries, off + E_VALUE_SIZE));
		uint64_t h = XXH64(name.data, name.len, tw_u8(entries, off + E_NAME_INDEX));
		sum += XXH64(value.data, value.len, h) | 1;
		off += (E_NAME + name_len + 3) & ~(size_t)3;
	}
	return sum;
}

uint64_t ext4_xattr_inode_digest(struct tw_span region)
{
	if (tw_le32(region, 0) != XATTR_MAGIC)
		return 0;
	struct tw_span entries = tw_span_sub(region, IN_INODE_HEADER, region.len);
	return digest_entries(entries, entries);
}

uint64_t ext4_xattr_block_digest(struct tw_span block)
{
	if (tw_le32(block, 0) != XATTR_MAGIC)
		return 0;
	return digest_entries(tw_span_sub(block, BLOCK_HEADER, block.len), block);
}
