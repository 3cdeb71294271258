/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Fast commits: what changed since the last commit, as a list of tags behind the journal's log.
 * Format: Linux Documentation/filesystems/ext4/journal.rst; fs/ext4/fast_commit.c for what a
 * recovery would take. Each one begins with a block of its own and ends with a tail, which carries
 * the number of the transaction under way and a checksum; the first one of a transaction has a
 * head.
 */
#ifndef TW_EXT4_FASTCOMMIT_H
#define TW_EXT4_FASTCOMMIT_H

#include "base/error.h"
#include "base/span.h"
#include <stdbool.h>
#include <stdint.h>

enum ext4_fc_tag {
	EXT4_FC_ADD_RANGE = 1,
	EXT4_FC_DEL_RANGE = 2,
	EXT4_FC_CREAT = 3,
	EXT4_FC_LINK = 4,
	EXT4_FC_UNLINK = 5,
	EXT4_FC_INODE = 6,
	EXT4_FC_PAD = 7,
	EXT4_FC_TAIL = 8,
	EXT4_FC_HEAD = 9,
};

/* One step of a fast commit. */
struct ext4_fc_op {
	enum ext4_fc_tag tag; /* ADD_RANGE, DEL_RANGE, CREAT, LINK, UNLINK or INODE */
	uint32_t ino;
	uint32_t dir; /* CREAT, LINK, UNLINK */
	struct tw_span
		bytes; /* CREAT, LINK, UNLINK: the name; INODE: the inode, or its beginning */
	uint32_t lblk, count; /* ADD_RANGE, DEL_RANGE */
	uint64_t block;       /* ADD_RANGE */
	bool unwritten;       /* ADD_RANGE */
};

struct ext4_fc;

/* For an area of n blocks; inode_size bounds what an INODE tag may carry. */
struct tw_error *ext4_fc_create(
	uint32_t n, uint32_t blocksize, uint32_t inode_size, struct ext4_fc **out) TW_MUST_CHECK;
void ext4_fc_destroy(struct ext4_fc *fc); /* NULL is fine */
uint32_t ext4_fc_blocks(const struct ext4_fc *fc);

/* Takes a block of the area that was written while this transaction was under way. The data is
 * copied. What belongs to another transaction is forgotten. */
struct tw_error *ext4_fc_write(
	struct ext4_fc *fc, uint32_t sequence, uint32_t index, const uint8_t *data) TW_MUST_CHECK;

/* The next fast commit of this transaction that is whole and holds its checksum: *ready is true and
 * the steps, in their order, live until it is released. */
struct tw_error *ext4_fc_next(struct ext4_fc *fc, uint32_t sequence, bool *ready,
	const struct ext4_fc_op **ops, size_t *n) TW_MUST_CHECK;
/* Forgets the blocks of the fast commit that ext4_fc_next gave; the next one begins behind it. */
void ext4_fc_release(struct ext4_fc *fc);
/* Takes no more fast commits of this transaction. */
void ext4_fc_give_up(struct ext4_fc *fc);

/* The block that has to come before ext4_fc_next gives more; UINT32_MAX: none of those that are
 * missing. */
uint32_t ext4_fc_wanted(const struct ext4_fc *fc);

/* The transaction under way as it was last told. */
uint32_t ext4_fc_sequence(const struct ext4_fc *fc);
/* Where its next fast commit begins; UINT32_MAX: none is taken any more. */
uint32_t ext4_fc_position(const struct ext4_fc *fc);
void ext4_fc_set_position(struct ext4_fc *fc, uint32_t sequence, uint32_t index);
/* True when a recovery may take fast commits of this transaction: one was taken or given up, or the
 * first block of the area says that there are some. */
bool ext4_fc_begun(const struct ext4_fc *fc, uint32_t sequence);
/* True for the last block of a fast commit of this transaction. */
bool ext4_fc_is_last(struct tw_span block, uint32_t sequence);
/* Calls each(index, data, arg) for every block that is held. */
void ext4_fc_pending(const struct ext4_fc *fc,
	void (*each)(uint32_t index, const uint8_t *data, void *arg), void *arg);

#endif
