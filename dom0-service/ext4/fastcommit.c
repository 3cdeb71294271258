/* SPDX-License-Identifier: BSD-3-Clause */
#include "ext4/fastcommit.h"

#include "base/crc32c.h"
#include "base/mem.h"
#include "ext4/logblocks.h"

#include <stdlib.h>

/* Offsets in tags; all fields are little-endian. */
enum {
	T_TAG = 0,
	T_LEN = 2,
	T_BYTES = 4,
	HEAD_FEATURES = 0,
	HEAD_TID = 4,
	HEAD_BYTES = 8,
	TAIL_TID = 0,
	TAIL_CRC = 4,
	TAIL_BYTES = 8,
	RANGE_INO = 0,
	ADD_LBLK = 4,
	ADD_LEN = 8,
	ADD_START_HI = 10,
	ADD_START_LO = 12,
	ADD_BYTES = 16,
	DEL_LBLK = 4,
	DEL_LEN = 8,
	DEL_BYTES = 12,
	NAME_DIR = 0,
	NAME_INO = 4,
	NAME_BYTES = 8,
	INODE_INO = 0,
	INODE_BYTES = 4,
	MAX_NAME = 255,
	MIN_INODE = 128,
	MAX_INIT_LEN = 32768,
};

/* A fast commit larger than this is left to the commit that follows. */
#define MAX_HELD (64u << 20)

struct ext4_fc {
	uint32_t n, blocksize, inode_size;
	struct tw_logblocks *blocks;
	uint32_t sequence;
	bool given_up;
	uint32_t begin; /* first block of the fast commit that is read */
	uint32_t at;    /* its next block to read */
	bool whole;     /* it has been read to its tail, in the block before at */
	bool stuck;     /* it contradicts itself as it is */
	uint32_t crc;
	struct ext4_fc_op *ops;
	size_t nops, capops;
};

enum outcome { MORE, TAIL, NONSENSE };

struct tw_error *ext4_fc_create(
	uint32_t n, uint32_t blocksize, uint32_t inode_size, struct ext4_fc **out)
{
	struct ext4_fc *fc = calloc(1, sizeof(*fc));
	if (!fc)
		return tw_error_nomem();
	fc->n = n;
	fc->blocksize = blocksize;
	fc->inode_size = inode_size;
	struct tw_error *err = tw_logblocks_create(n, blocksize, &fc->blocks);
	if (err) {
		free(fc);
		return err;
	}
	*out = fc;
	return NULL;
}

void ext4_fc_destroy(struct ext4_fc *fc)
{
	if (!fc)
		return;
	tw_logblocks_destroy(fc->blocks);
	free(fc->ops);
	free(fc);
}

uint32_t ext4_fc_blocks(const struct ext4_fc *fc)
{
	return fc->n;
}

/* Reads the fast commit from its beginning again. */
static void rewind_to(struct ext4_fc *fc, uint32_t begin)
{
	fc->begin = fc->at = begin;
	fc->whole = fc->stuck = false;
	fc->crc = 0;
	fc->nops = 0;
}

void ext4_fc_set_position(struct ext4_fc *fc, uint32_t sequence, uint32_t index)
{
	tw_logblocks_clear(fc->blocks);
	fc->sequence = sequence;
	fc->given_up = index == UINT32_MAX;
	rewind_to(fc, fc->given_up ? 0 : index);
}

uint32_t ext4_fc_sequence(const struct ext4_fc *fc)
{
	return fc->sequence;
}

uint32_t ext4_fc_position(const struct ext4_fc *fc)
{
	return fc->given_up ? UINT32_MAX : fc->begin;
}

void ext4_fc_give_up(struct ext4_fc *fc)
{
	ext4_fc_set_position(fc, fc->sequence, UINT32_MAX);
}

struct tw_error *ext4_fc_write(
	struct ext4_fc *fc, uint32_t sequence, uint32_t index, const uint8_t *data)
{
	struct tw_logblock *block;
	if (sequence != fc->sequence)
		ext4_fc_set_position(fc, sequence, 0);
	if (fc->given_up || index < fc->begin)
		return NULL;
	if (tw_logblocks_count(fc->blocks) >= MAX_HELD / fc->blocksize) {
		ext4_fc_give_up(fc);
		return NULL;
	}
	TW_TRY(tw_logblocks_get(fc->blocks, index, &block));
	memcpy(block->data, data, fc->blocksize);
	if (index < fc->at)
		rewind_to(fc, fc->begin);
	return NULL;
}

static void take_add(struct tw_span v, struct ext4_fc_op *op)
{
	uint32_t len = tw_le16(v, ADD_LEN);
	op->ino = tw_le32(v, RANGE_INO);
	op->lblk = tw_le32(v, ADD_LBLK);
	op->unwritten = len > MAX_INIT_LEN;
	op->count = op->unwritten ? len - MAX_INIT_LEN : len;
	op->block = tw_le32(v, ADD_START_LO) | (uint64_t)tw_le16(v, ADD_START_HI) << 32;
}

static void take_del(struct tw_span v, struct ext4_fc_op *op)
{
	op->ino = tw_le32(v, RANGE_INO);
	op->lblk = tw_le32(v, DEL_LBLK);
	op->count = tw_le32(v, DEL_LEN);
}

static void take_name(struct tw_span v, struct ext4_fc_op *op)
{
	op->dir = tw_le32(v, NAME_DIR);
	op->ino = tw_le32(v, NAME_INO);
	op->bytes = tw_span_sub(v, NAME_BYTES, v.len);
}

static void take_inode(struct tw_span v, struct ext4_fc_op *op)
{
	op->ino = tw_le32(v, INODE_INO);
	op->bytes = tw_span_sub(v, INODE_BYTES, v.len);
}

/* Lengths that a recovery would take. */
static bool length_holds(const struct ext4_fc *fc, uint32_t tag, size_t len)
{
	switch (tag) {
	case EXT4_FC_ADD_RANGE:
		return len == ADD_BYTES;
	case EXT4_FC_DEL_RANGE:
		return len == DEL_BYTES;
	case EXT4_FC_CREAT:
	case EXT4_FC_LINK:
	case EXT4_FC_UNLINK:
		return len > NAME_BYTES && len <= NAME_BYTES + MAX_NAME;
	case EXT4_FC_INODE:
		return len >= INODE_BYTES + MIN_INODE && len <= INODE_BYTES + fc->inode_size;
	case EXT4_FC_PAD:
		return true;
	case EXT4_FC_TAIL:
		return len >= TAIL_BYTES;
	case EXT4_FC_HEAD:
		return len == HEAD_BYTES;
	}
	return false;
}

static struct tw_error *add_op(struct ext4_fc *fc, enum ext4_fc_tag tag, struct tw_span value)
{
	if (!TW_GROW(fc->ops, fc->nops, fc->capops))
		return tw_error_nomem();
	struct ext4_fc_op *op = &fc->ops[fc->nops++];
	*op = (struct ext4_fc_op){.tag = tag};
	if (tag == EXT4_FC_ADD_RANGE)
		take_add(value, op);
	else if (tag == EXT4_FC_DEL_RANGE)
		take_del(value, op);
	else if (tag == EXT4_FC_INODE)
		take_inode(value, op);
	else
		take_name(value, op);
	return NULL;
}

static bool tail_holds(struct ext4_fc *fc, struct tw_span tag, struct tw_span value)
{
	uint32_t crc = tw_crc32c(fc->crc, tag.data, T_BYTES + TAIL_CRC);
	return tw_le32(value, TAIL_TID) == fc->sequence && tw_le32(value, TAIL_CRC) == crc;
}

/* One block of tags. Unknown ones end the fast commits, as they do for a recovery. */
static struct tw_error *read_block(struct ext4_fc *fc, const uint8_t *data, enum outcome *out)
{
	struct tw_span s = tw_span(data, fc->blocksize);
	*out = NONSENSE;
	if (!fc->at && tw_le16(s, T_TAG) != EXT4_FC_HEAD)
		return NULL;
	for (size_t off = 0; off + T_BYTES <= s.len;) {
		uint32_t tag = tw_le16(s, off + T_TAG);
		size_t len = tw_le16(s, off + T_LEN);
		struct tw_span value = tw_span_sub(s, off + T_BYTES, len);
		if (value.len != len || !length_holds(fc, tag, len))
			return NULL;
		if (tag == EXT4_FC_TAIL) {
			if (tail_holds(fc, tw_span_sub(s, off, s.len), value))
				*out = TAIL;
			return NULL;
		}
		if (tag == EXT4_FC_HEAD &&
			(tw_le32(value, HEAD_FEATURES) || tw_le32(value, HEAD_TID) != fc->sequence))
			return NULL;
		if (tag != EXT4_FC_HEAD && tag != EXT4_FC_PAD)
			TW_TRY(add_op(fc, tag, value));
		fc->crc = tw_crc32c(fc->crc, s.data + off, T_BYTES + len);
		off += T_BYTES + len;
	}
	*out = MORE;
	return NULL;
}

struct tw_error *ext4_fc_next(struct ext4_fc *fc, uint32_t sequence, bool *ready,
	const struct ext4_fc_op **ops, size_t *n)
{
	*ready = false;
	if (sequence != fc->sequence)
		ext4_fc_set_position(fc, sequence, 0);
	while (!fc->given_up && !fc->whole && !fc->stuck) {
		const struct tw_logblock *block = tw_logblocks_find(fc->blocks, fc->at);
		enum outcome outcome;
		if (!block)
			return NULL;
		TW_TRY(read_block(fc, block->data, &outcome));
		fc->at++;
		fc->whole = outcome == TAIL;
		fc->stuck = outcome == NONSENSE;
	}
	*ready = fc->whole && !fc->given_up;
	*ops = fc->ops;
	*n = fc->nops;
	return NULL;
}

uint32_t ext4_fc_wanted(const struct ext4_fc *fc)
{
	return fc->given_up || fc->whole || fc->stuck ? UINT32_MAX : fc->at;
}

void ext4_fc_release(struct ext4_fc *fc)
{
	for (uint32_t at = fc->begin; at < fc->at; at++)
		tw_logblocks_drop(fc->blocks, at);
	rewind_to(fc, fc->at);
}

bool ext4_fc_begun(const struct ext4_fc *fc, uint32_t sequence)
{
	if (sequence != fc->sequence)
		return false;
	if (fc->given_up || fc->begin)
		return true;
	const struct tw_logblock *first = tw_logblocks_find(fc->blocks, 0);
	struct tw_span s = tw_span(first ? first->data : NULL, first ? fc->blocksize : 0);
	return tw_le16(s, T_TAG) == EXT4_FC_HEAD && tw_le32(s, T_BYTES + HEAD_TID) == sequence;
}

bool ext4_fc_is_last(struct tw_span s, uint32_t sequence)
{
	size_t off = 0;
	while (off + T_BYTES + TAIL_BYTES <= s.len && tw_le16(s, off + T_TAG) != EXT4_FC_TAIL)
		off += T_BYTES + tw_le16(s, off + T_LEN);
	return off + T_BYTES + TAIL_BYTES <= s.len &&
	       tw_le32(s, off + T_BYTES + TAIL_TID) == sequence;
}

void ext4_fc_pending(const struct ext4_fc *fc,
	void (*each)(uint32_t index, const uint8_t *data, void *arg), void *arg)
{
	tw_logblocks_each(fc->blocks, each, arg);
}
