/* SPDX-License-Identifier: BSD-3-Clause */
#include "ext4/ext4.h"

/* directory.rst, struct ext4_dir_entry_2. Index nodes of a hashed directory and checksum tails look
 * like unused entries (inode 0) by design. */
enum { D_INODE = 0, D_REC_LEN = 4, D_NAME_LEN = 6, D_NAME = 8, D_MIN = 12 };

static size_t record_length(struct tw_span block, size_t off)
{
	size_t len = tw_le16(block, off + D_REC_LEN);
	/* 64 KiB does not fit the field. */
	if (len == 0xffff || (len == 0 && block.len == 65536))
		return 65536;
	return len;
}

static bool is_dots(const uint8_t *name, size_t len)
{
	return name[0] == '.' && (len == 1 || (len == 2 && name[1] == '.'));
}

/* True when a byte of the word is zero or a slash. */
static bool has_separator(uint64_t word)
{
	const uint64_t ones = 0x0101010101010101ull, tops = 0x8080808080808080ull;
	uint64_t slash = word ^ ones * '/';
	return (((word - ones) & ~word) | ((slash - ones) & ~slash)) & tops;
}

static uint64_t word_at(const uint8_t *at)
{
	uint64_t word;
	memcpy(&word, at, sizeof(word));
	return word;
}

/* No slash and no NUL. Names are short: to call for each would cost more than the bytes. */
static bool is_name(const uint8_t *name, size_t len)
{
	const size_t step = sizeof(uint64_t);
	if (len < step) {
		for (size_t i = 0; i < len; i++)
			if (!name[i] || name[i] == '/')
				return false;
		return true;
	}
	for (size_t i = 0; i + step < len; i += step)
		if (has_separator(word_at(name + i)))
			return false;
	return !has_separator(word_at(name + len - step));
}

bool ext4_dirent_next(const struct ext4_geometry *geo, struct tw_span block, bool encrypted,
	size_t *off, struct ext4_dirent *out)
{
	while (*off + D_MIN <= block.len) {
		size_t at = *off, len = record_length(block, at);
		if (len < D_MIN || len > block.len - at) {
			*off = block.len;
			return false;
		}
		*off = at + len;
		uint32_t ino = tw_le32(block, at + D_INODE);
		uint8_t name_len = tw_u8(block, at + D_NAME_LEN);
		const uint8_t *name = block.data + at + D_NAME;
		if (!ino || !name_len || D_NAME + (size_t)name_len > len || is_dots(name, name_len))
			continue;
		if (ino > geo->ninodes || ino < geo->first_ino ||
			(!encrypted && !is_name(name, name_len)))
			continue;
		*out = (struct ext4_dirent){ino, name_len, name};
		return true;
	}
	return false;
}
