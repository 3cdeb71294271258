/* SPDX-License-Identifier: BSD-3-Clause */
/* Fast commits built by hand, in an area of blocks of 1 KiB. */
#ifndef EXT4_FASTLOG_H
#define EXT4_FASTLOG_H

#include "../check.h"

#include "ext4/fastcommit.h"

#include <endian.h>

/* libext2fs; its header and ours both name what is on disk. */
uint32_t ext2fs_crc32c_le(uint32_t crc, const unsigned char *p, size_t len);

enum { FAST_BLOCK = 1024, FAST_LEN = 12, FAST_INODE = 256 };

struct fastlog {
	uint32_t tid;
	uint32_t at;  /* block */
	size_t off;   /* in it */
	uint32_t crc;
	bool old; /* as Linux before 6.2: the last byte of a block is never used */
	uint8_t blocks[FAST_LEN][FAST_BLOCK];
};

static inline void fast_le16(uint8_t *at, uint32_t v)
{
	uint16_t le = htole16((uint16_t)v);
	memcpy(at, &le, 2);
}

static inline void fast_le32(uint8_t *at, uint32_t v)
{
	v = htole32(v);
	memcpy(at, &v, 4);
}

static inline void fast_raw(struct fastlog *l, uint32_t tag, const void *value, size_t len, size_t summed)
{
	uint8_t *at = l->blocks[l->at] + l->off;
	assert_true(l->off + 4 + len <= FAST_BLOCK);
	fast_le16(at, tag);
	fast_le16(at + 2, (uint32_t)len);
	memmove(at + 4, value, len);
	l->crc = ext2fs_crc32c_le(l->crc, at, 4 + summed);
	l->off += 4 + len;
}

/* A tag that finds no room goes to the next block. */
static inline void fast_tag(struct fastlog *l, uint32_t tag, const void *value, size_t len)
{
	static const uint8_t zero[FAST_BLOCK];
	size_t room = FAST_BLOCK - l->off - (l->old ? 1 : 0);
	if (room < 4 + len + 4) {
		fast_raw(l, EXT4_FC_PAD, zero, room - 4, room - 4);
		l->at++;
		l->off = 0;
	}
	fast_raw(l, tag, value, len, len);
}

static inline void fast_head(struct fastlog *l, uint32_t features)
{
	uint8_t value[8];
	fast_le32(value, features);
	fast_le32(value + 4, l->tid);
	fast_tag(l, EXT4_FC_HEAD, value, sizeof(value));
}

static inline void fast_name(struct fastlog *l, uint32_t tag, uint32_t dir, uint32_t ino, const char *name)
{
	uint8_t value[8 + 255];
	fast_le32(value, dir);
	fast_le32(value + 4, ino);
	memcpy(value + 8, name, strlen(name));
	fast_tag(l, tag, value, 8 + strlen(name));
}

static inline void fast_add(struct fastlog *l, uint32_t ino, uint32_t lblk, uint64_t block, uint32_t len,
	bool unwritten)
{
	uint8_t value[16];
	fast_le32(value, ino);
	fast_le32(value + 4, lblk);
	fast_le16(value + 8, unwritten ? len + 32768 : len);
	fast_le16(value + 10, (uint32_t)(block >> 32));
	fast_le32(value + 12, (uint32_t)block);
	fast_tag(l, EXT4_FC_ADD_RANGE, value, sizeof(value));
}

static inline void fast_del(struct fastlog *l, uint32_t ino, uint32_t lblk, uint32_t len)
{
	uint8_t value[12];
	fast_le32(value, ino);
	fast_le32(value + 4, lblk);
	fast_le32(value + 8, len);
	fast_tag(l, EXT4_FC_DEL_RANGE, value, sizeof(value));
}

static inline void fast_inode(struct fastlog *l, uint32_t ino, const void *raw, size_t len)
{
	uint8_t value[4 + FAST_INODE];
	fast_le32(value, ino);
	memcpy(value + 4, raw, len);
	fast_tag(l, EXT4_FC_INODE, value, 4 + len);
}

/* The tail fills its block; the next fast commit begins with the next one. */
static inline void fast_tail(struct fastlog *l)
{
	static const uint8_t zero[FAST_BLOCK];
	size_t room = FAST_BLOCK - l->off - (l->old ? 1 : 0);
	if (room < 4 + 8 + 4) {
		fast_raw(l, EXT4_FC_PAD, zero, room - 4, room - 4);
		l->at++;
		l->off = 0;
		room = FAST_BLOCK - (l->old ? 1 : 0);
	}
	uint8_t *at = l->blocks[l->at] + l->off;
	fast_le32(at + 4, l->tid);
	fast_raw(l, EXT4_FC_TAIL, at + 4, room - 4, 4);
	fast_le32(at + 8, l->crc);
	l->at++;
	l->off = 0;
	l->crc = 0;
}

#endif
