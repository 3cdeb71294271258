/* SPDX-License-Identifier: BSD-3-Clause */
#include "ext4/xattr.h"

#include <xxhash.h>

/* attributes.rst: both headers begin with the magic; in an inode the entries follow it at once. */
#define XATTR_MAGIC 0xea020000u
enum {
	IN_INODE_HEADER = 4,
	BLOCK_HEADER = 32,
	E_NAME_LEN = 0,
	E_NAME_INDEX = 1,
	E_VALUE_OFFS = 2,
	E_VALUE_INUM = 4,
	E_VALUE_SIZE = 8,
	E_HASH = 12,
	E_NAME = 16,
	INDEX_SYSTEM = 7,
};

struct ext4_xattrs ext4_xattrs_of_inode(struct tw_span region)
{
	if (tw_le32(region, 0) != XATTR_MAGIC)
		return (struct ext4_xattrs){0};
	struct tw_span entries = tw_span_sub(region, IN_INODE_HEADER, region.len);
	return (struct ext4_xattrs){.entries = entries, .base = entries};
}

struct ext4_xattrs ext4_xattrs_of_block(struct tw_span block)
{
	if (tw_le32(block, 0) != XATTR_MAGIC)
		return (struct ext4_xattrs){0};
	return (struct ext4_xattrs){
		.entries = tw_span_sub(block, BLOCK_HEADER, block.len), .base = block};
}

/* A large value lies in an inode of its own, which others may share. The entry's hash covers it. */
static uint64_t value_digest(const struct ext4_xattrs *list, size_t off)
{
	if (tw_le32(list->entries, off + E_VALUE_INUM))
		return XXH64(&(uint64_t){tw_le32(list->entries, off + E_HASH)}, sizeof(uint64_t),
			tw_le32(list->entries, off + E_VALUE_SIZE));
	struct tw_span value = tw_span_sub(list->base, tw_le16(list->entries, off + E_VALUE_OFFS),
		tw_le32(list->entries, off + E_VALUE_SIZE));
	return XXH64(value.data, value.len, 0);
}

/* The offset of the next entry, whatever it is; false at the end. */
static bool next_entry(struct ext4_xattrs *list, size_t *at)
{
	*at = list->off;
	if (!tw_le32(list->entries, *at))
		return false;
	size_t name_len = tw_u8(list->entries, *at + E_NAME_LEN);
	list->off += (E_NAME + name_len + 3) & ~(size_t)3;
	/* A name that does not fit is nonsense, and so is what follows. */
	return *at + E_NAME + name_len <= list->entries.len;
}

static bool is_inline_data(struct tw_span entries, size_t at)
{
	return tw_u8(entries, at + E_NAME_INDEX) == INDEX_SYSTEM &&
	       tw_u8(entries, at + E_NAME_LEN) == 4 &&
	       !memcmp(entries.data + at + E_NAME, "data", 4);
}

bool ext4_xattr_next(struct ext4_xattrs *list, struct ext4_xattr *out)
{
	size_t at;
	while (next_entry(list, &at)) {
		if (is_inline_data(list->entries, at))
			continue;
		*out = (struct ext4_xattr){
			.index = tw_u8(list->entries, at + E_NAME_INDEX),
			.len = tw_u8(list->entries, at + E_NAME_LEN),
			.name = list->entries.data + at + E_NAME,
			.value = value_digest(list, at),
		};
		return true;
	}
	return false;
}

uint64_t ext4_xattrs_digest(struct ext4_xattrs list)
{
	struct ext4_xattr xattr;
	uint64_t sum = 0;
	while (ext4_xattr_next(&list, &xattr)) {
		uint64_t name = XXH64(xattr.name, xattr.len, xattr.index);
		sum += XXH64(&xattr.value, sizeof(xattr.value), name) | 1;
	}
	return sum;
}

struct tw_span ext4_xattr_inline_data(struct tw_span region)
{
	struct ext4_xattrs list = ext4_xattrs_of_inode(region);
	size_t at;
	while (next_entry(&list, &at))
		if (is_inline_data(list.entries, at) && !tw_le32(list.entries, at + E_VALUE_INUM))
			return tw_span_sub(list.base, tw_le16(list.entries, at + E_VALUE_OFFS),
				tw_le32(list.entries, at + E_VALUE_SIZE));
	return (struct tw_span){0};
}
