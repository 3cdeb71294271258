/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * jbd2: follows a journal as it is written and hands out transactions once their commit block is
 * seen and every checksum holds. Formats: Linux include/linux/jbd2.h; fs/jbd2/recovery.c for what a
 * recovery would take.
 */
#ifndef TW_EXT4_JBD2_H
#define TW_EXT4_JBD2_H

#include "base/error.h"
#include "base/span.h"
#include "event/event.h"
#include <stdbool.h>
#include <stdint.h>

/* A block that a transaction wrote; the data lives until the transaction is released. */
struct tw_jbd2_block {
	uint64_t block;
	const uint8_t *data;
};

struct tw_jbd2_transaction {
	uint32_t sequence;
	uint32_t head;       /* log block at which it begins */
	struct tw_time time; /* of the commit, by the guest's clock */
	const struct tw_jbd2_block
		*blocks; /* in log order; a block may stand twice, the last one counts */
	size_t nblocks;
	const uint64_t *revoked;
	size_t nrevoked;
};

/* Where the log is: what a restart must know. */
struct tw_jbd2_position {
	uint32_t head; /* log block at which the next transaction begins; 0: not known, the journal
			  is empty */
	uint32_t sequence; /* its number */
};

static inline bool tw_jbd2_same(struct tw_jbd2_position a, struct tw_jbd2_position b)
{
	return a.head == b.head && a.sequence == b.sequence;
}

/* What a journal's superblock says of that; head 0: the log is empty. */
static inline struct tw_jbd2_position tw_jbd2_tail(struct tw_span superblock)
{
	enum { S_SEQUENCE = 24, S_START = 28 };
	return (struct tw_jbd2_position){
		tw_be32(superblock, S_START), tw_be32(superblock, S_SEQUENCE)};
}

/* How many blocks a journal has, its superblock included. */
static inline uint32_t tw_jbd2_blocks(struct tw_span superblock)
{
	enum { S_MAXLEN = 16 };
	return tw_be32(superblock, S_MAXLEN);
}
/* The first block of its area for fast commits, also while it says that it has none; 0: no room for one, or one that is
 * too large to be looked through. */
static inline uint32_t tw_jbd2_fast_area(struct tw_span superblock)
{
	enum { S_MAXLEN = 16, S_FAST_BLOCKS = 0x54, DEFAULT = 256, MOST = 16384 };
	uint32_t maxlen = tw_be32(superblock, S_MAXLEN), n = tw_be32(superblock, S_FAST_BLOCKS);
	n = n ? n : DEFAULT;
	return n < maxlen / 2 && n <= MOST ? maxlen - n : 0;
}
/* True for a log block from one place up to another, in a log that goes round. */
static inline bool tw_jbd2_within(uint32_t from, uint32_t to, uint32_t log_block)
{
	return from <= to ? log_block >= from && log_block < to
			  : log_block >= from || log_block < to;
}
/* True for the block that commits the transaction of this number. */
static inline bool tw_jbd2_is_commit(struct tw_span block, uint32_t sequence)
{
	enum { H_TYPE = 4, H_SEQUENCE = 8, COMMIT = 2 };
	return tw_be32(block, 0) == 0xc03b3998u && tw_be32(block, H_TYPE) == COMMIT &&
	       tw_be32(block, H_SEQUENCE) == sequence;
}
/* True when each block of a transaction has a checksum that tells it from another one (version 3).
 */
static inline bool tw_jbd2_checks_blocks(struct tw_span superblock)
{
	enum { H_TYPE = 4, SUPERBLOCK_V2 = 4, S_INCOMPAT = 40, CSUM_V3 = 16 };
	return tw_be32(superblock, H_TYPE) == SUPERBLOCK_V2 &&
	       tw_be32(superblock, S_INCOMPAT) & CSUM_V3;
}

/* True when a commit block may reach the disk before blocks that it covers. */
static inline bool tw_jbd2_commits_early(struct tw_span superblock)
{
	enum { H_TYPE = 4, SUPERBLOCK_V2 = 4, S_INCOMPAT = 40, ASYNC_COMMIT = 4 };
	return tw_be32(superblock, H_TYPE) == SUPERBLOCK_V2 &&
	       tw_be32(superblock, S_INCOMPAT) & ASYNC_COMMIT;
}

struct tw_jbd2;

/* Reads one log block for a journal that is attached in the middle of a transaction. */
typedef struct tw_error *(*tw_jbd2_load_fn)(void *arg, uint32_t log_block, void *buf);

/* superblock: the journal's first block. blocksize must be the file system's. TW_UNSUPPORTED names
 * what cannot be followed. */
struct tw_error *tw_jbd2_create(struct tw_span superblock, uint32_t blocksize, tw_jbd2_load_fn load,
	void *arg, struct tw_jbd2 **out) TW_MUST_CHECK;
void tw_jbd2_destroy(struct tw_jbd2 *j); /* NULL is fine */
/* The superblock as it was last written: what tw_jbd2_create wants. 1,024 bytes. */
struct tw_span tw_jbd2_superblock(const struct tw_jbd2 *j);
/* Gives the loader another argument. */
void tw_jbd2_set_arg(struct tw_jbd2 *j, void *arg);

/* Takes a write of one log block, but for those of fast commits. The data is copied. */
struct tw_error *tw_jbd2_write(
	struct tw_jbd2 *j, uint32_t log_block, const uint8_t *data) TW_MUST_CHECK;

/* True for a log block in the area of the fast commits; index counts from the area's beginning. */
bool tw_jbd2_fast_place(const struct tw_jbd2 *j, uint32_t log_block, uint32_t *index);
/* ... and back. */
uint32_t tw_jbd2_fast_log_block(const struct tw_jbd2 *j, uint32_t index);
/* Blocks in that area; 0: the journal has none just now. It may come with a superblock. */
uint32_t tw_jbd2_fast_blocks(const struct tw_jbd2 *j);

/* The next transaction that is complete, or out->nblocks and *ready left at 0/false. With recover
 * set, log blocks that have not been seen are loaded (for a crawl). TW_GAP: a commit came whose
 * transaction is not there. */
struct tw_error *tw_jbd2_next(struct tw_jbd2 *j, bool recover, bool *ready,
	struct tw_jbd2_transaction *out) TW_MUST_CHECK;
/* Forgets the transaction that tw_jbd2_next handed out and its log blocks. */
void tw_jbd2_release(struct tw_jbd2 *j, struct tw_jbd2_transaction *txn);

/* True when the log holds the beginning of a transaction whose commit has not been seen. */
bool tw_jbd2_underway(const struct tw_jbd2 *j);

/* True when the next transaction's commit was seen while blocks of it are missing: at a flush of
 * the guest they cannot be on their way any more. */
bool tw_jbd2_stalled(const struct tw_jbd2 *j);

struct tw_jbd2_position tw_jbd2_position(const struct tw_jbd2 *j);
void tw_jbd2_set_position(struct tw_jbd2 *j, struct tw_jbd2_position position);
/* The log block before one of the log, which goes round; and the one after it. */
uint32_t tw_jbd2_before(const struct tw_jbd2 *j, uint32_t log_block);
uint32_t tw_jbd2_after(const struct tw_jbd2 *j, uint32_t log_block);
/* Forgets the blocks of the log that are held. */
void tw_jbd2_forget(struct tw_jbd2 *j);

/* Calls each(log_block, data, arg) for every log block of the unfinished transaction that is held.
 */
void tw_jbd2_pending(const struct tw_jbd2 *j,
	void (*each)(uint32_t log_block, const uint8_t *data, void *arg), void *arg);

#endif
