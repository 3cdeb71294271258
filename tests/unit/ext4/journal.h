/* SPDX-License-Identifier: BSD-3-Clause */
/* A journal built by hand: blocks of 1 KiB, written into a log as jbd2 would, with every checksum. */
#ifndef EXT4_JOURNAL_H
#define EXT4_JOURNAL_H

#include "../check.h"

#include "ext4/jbd2.h"

#include <endian.h>
#include <stdlib.h>

/* libext2fs; its header and ours both name what is on disk. */
uint32_t ext2fs_crc32c_le(uint32_t crc, const unsigned char *p, size_t len);
uint32_t ext2fs_crc32_be(uint32_t crc, const unsigned char *p, size_t len);

enum { LOG_BLOCK = 1024, LOG_LEN = 32, LOG_FIRST = 1 };
enum { JBD2_REVOKE_F = 1, JBD2_64BIT_F = 2, JBD2_ASYNC_F = 4, JBD2_V2_F = 8, JBD2_V3_F = 16,
	JBD2_FAST_F = 32,
	JBD2_V1_F = 1u << 31 /* on disk a compatible feature of its own */ };
enum { LOG_FAST_BLOCKS = 10 };
enum { T_DESCRIPTOR = 1, T_COMMIT = 2, T_SUPERBLOCK = 4, T_REVOKE = 5 };
#define LOG_MAGIC 0xc03b3998u

struct journal {
	uint32_t features;
	uint32_t pos; /* where the next block goes */
	uint32_t sequence;
	uint32_t sum; /* of the first version */
	uint8_t blocks[LOG_LEN][LOG_BLOCK];
	struct tw_jbd2 *j;
};

static inline void be32(uint8_t *at, uint32_t v)
{
	v = htobe32(v);
	memcpy(at, &v, 4);
}

static inline void be16(uint8_t *at, uint16_t v)
{
	v = htobe16(v);
	memcpy(at, &v, 2);
}

static inline bool log_csum(const struct journal *l)
{
	return l->features & (JBD2_V2_F | JBD2_V3_F);
}

static inline uint32_t log_seed(const struct journal *l)
{
	return ext2fs_crc32c_le(~0u, l->blocks[0] + 0x30, 16);
}

static inline void log_header(uint8_t *block, uint32_t type, uint32_t sequence)
{
	memset(block, 0, LOG_BLOCK);
	be32(block, LOG_MAGIC);
	be32(block + 4, type);
	be32(block + 8, sequence);
}

static inline void log_superblock(struct journal *l, uint32_t start, uint32_t sequence)
{
	uint8_t *sb = l->blocks[0];
	log_header(sb, T_SUPERBLOCK, 0);
	be32(sb + 12, LOG_BLOCK);
	be32(sb + 16, LOG_LEN);
	be32(sb + 20, LOG_FIRST);
	be32(sb + 24, sequence);
	be32(sb + 28, start);
	be32(sb + 0x24, l->features & JBD2_V1_F ? 1 : 0);
	be32(sb + 0x28, l->features & ~JBD2_V1_F);
	be32(sb + 0x54, LOG_FAST_BLOCKS);
	memset(sb + 0x30, 0x5a, 16);
	sb[0x50] = 4; /* crc32c */
}

static inline struct tw_error *log_load(void *arg, uint32_t at, void *buf)
{
	const struct journal *l = arg;
	if (at >= LOG_LEN)
		return tw_error_create(TW_BAD_DATA, "the journal has no block %u", at);
	memcpy(buf, l->blocks[at], LOG_BLOCK);
	return NULL;
}

/* A follower of this log as it is now. */
static inline void log_open(struct journal *l)
{
	ok(tw_jbd2_create(tw_span(l->blocks[0], LOG_BLOCK), LOG_BLOCK, log_load, l, &l->j));
}

/* A log whose next transaction is this one, at this place. */
static inline struct journal *log_new(uint32_t features, uint32_t pos, uint32_t sequence)
{
	struct journal *l = calloc(1, sizeof(*l));
	l->features = features;
	l->pos = pos;
	l->sequence = sequence;
	l->sum = ~0u;
	log_superblock(l, pos, sequence);
	log_open(l);
	return l;
}

static inline void log_free(struct journal *l)
{
	tw_jbd2_destroy(l->j);
	free(l);
}

/* Behind the last block of the log; fast commits follow. */
static inline uint32_t log_end(const struct journal *l)
{
	return l->features & JBD2_FAST_F ? LOG_LEN - LOG_FAST_BLOCKS : LOG_LEN;
}

/* Takes the next place of the log. */
static inline uint32_t log_take(struct journal *l)
{
	uint32_t at = l->pos++;
	if (l->pos == log_end(l))
		l->pos = LOG_FIRST;
	return at;
}

static inline void log_tail(const struct journal *l, uint8_t *block)
{
	if (log_csum(l))
		be32(block + LOG_BLOCK - 4, ext2fs_crc32c_le(log_seed(l), block, LOG_BLOCK));
}

struct log_item {
	uint64_t block;
	uint8_t fill;
	bool escaped; /* its content begins with the magic */
};

static inline uint32_t log_data_csum(const struct journal *l, const uint8_t *data)
{
	uint8_t sequence[4];
	be32(sequence, l->sequence);
	return ext2fs_crc32c_le(ext2fs_crc32c_le(log_seed(l), sequence, 4), data, LOG_BLOCK);
}

/* Writes one tag at off; returns the offset behind it. */
static inline size_t log_tag(const struct journal *l, uint8_t *block, size_t off,
	const struct log_item *item, uint32_t flags, uint32_t csum)
{
	uint8_t *tag = block + off;
	size_t bytes = 16;
	be32(tag, (uint32_t)item->block);
	if (l->features & JBD2_V3_F) {
		be32(tag + 4, flags);
		be32(tag + 12, csum);
	} else {
		be16(tag + 4, l->features & JBD2_V2_F ? (uint16_t)csum : 0);
		be16(tag + 6, (uint16_t)flags);
		bytes = 8;
	}
	if (l->features & JBD2_64BIT_F) {
		be32(tag + 8, (uint32_t)(item->block >> 32));
		bytes = l->features & JBD2_V3_F ? 16 : 12;
	}
	if (l->features & JBD2_V2_F)
		bytes += 2;
	if (!(flags & 2)) {
		memset(tag + bytes, 0x5a, 16);
		bytes += 16;
	}
	return off + bytes;
}

/* A descriptor and its blocks; returns the log block of the descriptor. */
static inline uint32_t log_blocks(struct journal *l, const struct log_item *items, size_t n)
{
	uint32_t at = log_take(l);
	uint8_t *descriptor = l->blocks[at];
	size_t off = 12;
	log_header(descriptor, T_DESCRIPTOR, l->sequence);
	for (size_t i = 0; i < n; i++) {
		uint8_t *data = l->blocks[log_take(l)];
		memset(data, items[i].fill, LOG_BLOCK);
		if (items[i].escaped)
			memset(data, 0, 4);
		uint32_t flags = (items[i].escaped ? 1 : 0) | (i ? 2 : 0) | (i + 1 == n ? 8 : 0);
		off = log_tag(l, descriptor, off, &items[i], flags, log_data_csum(l, data));
	}
	log_tail(l, descriptor);
	l->sum = ext2fs_crc32_be(l->sum, descriptor, LOG_BLOCK);
	for (uint32_t i = 0, k = at; i < n; i++) {
		k = k + 1 == log_end(l) ? LOG_FIRST : k + 1;
		l->sum = ext2fs_crc32_be(l->sum, l->blocks[k], LOG_BLOCK);
	}
	return at;
}

static inline uint32_t log_revoke(struct journal *l, const uint64_t *blocks, size_t n)
{
	uint32_t at = log_take(l), size = l->features & JBD2_64BIT_F ? 8 : 4;
	uint8_t *block = l->blocks[at];
	log_header(block, T_REVOKE, l->sequence);
	be32(block + 12, (uint32_t)(16 + n * size));
	for (size_t i = 0; i < n; i++) {
		be32(block + 16 + i * size + size - 4, (uint32_t)blocks[i]);
		if (size == 8)
			be32(block + 16 + i * size, (uint32_t)(blocks[i] >> 32));
	}
	log_tail(l, block);
	return at;
}

/* The commit block; the transaction is complete with it. */
static inline uint32_t log_commit(struct journal *l)
{
	uint32_t at = log_take(l);
	uint8_t *block = l->blocks[at];
	log_header(block, T_COMMIT, l->sequence);
	be32(block + 52, 1700000000u + l->sequence);
	be32(block + 56, 123456789);
	if (log_csum(l))
		be32(block + 16, ext2fs_crc32c_le(log_seed(l), block, LOG_BLOCK));
	if (l->features & JBD2_V1_F) {
		block[12] = 1;
		block[13] = 4;
		be32(block + 16, l->sum);
	}
	l->sum = ~0u;
	l->sequence++;
	return at;
}

/* The guest writes log blocks from .. up to to (wrapping), one by one. */
static inline void log_write(struct journal *l, uint32_t from, uint32_t to)
{
	while (from != to) {
		ok(tw_jbd2_write(l->j, from, l->blocks[from]));
		from = from + 1 == log_end(l) ? LOG_FIRST : from + 1;
	}
}

#endif
