/* SPDX-License-Identifier: BSD-3-Clause */
/* Inside of gather.c and gather_log.c: what is found while a gap is looked at. */
#ifndef TW_EXT4_GATHER_H
#define TW_EXT4_GATHER_H

#include "ext4/ext4.h"

struct ext4_gather {
	struct ext4 *fs;
	const struct tw_missed *missed; /* tidy */
	bool live;   /* the journal is in use */
	bool onward; /* the log still holds all since the last commit that was followed */
	bool again;  /* the log went on too fast */
	struct tw_jbd2 *journal; /* NULL: there is none */
	uint8_t *superblock;     /* the journal's, as it was read; room for a block */
	struct tw_jbd2_position start; /* where the log was begun to be read */
	struct ext4_replay log;
	struct ext4_block *homes;
	struct ext4_block *early; /* nobody's, and may be metadata */
	struct ext4_block *pending; /* blocks of the log, of the transaction under way */
	struct ext4_block *fast;    /* blocks of fast commits, by their index */
	uint64_t looked_at; /* bytes */
	bool fresh; /* something was read at its home since it was asked */
	uint8_t *buf; /* room for a block */
};

/* --- gather.c --- */

/* True when a block was written unseen. */
bool ext4_gather_is_dirty(const struct ext4_gather *g, uint64_t block);
/* TW_GAP when so much was read that a crawl is faster. */
struct tw_error *ext4_gather_check_size(const struct ext4_gather *g) TW_MUST_CHECK;

/* --- gather_log.c --- */

struct tw_error *ext4_gather_open_log(struct ext4_gather *g) TW_MUST_CHECK;
/* Where to begin: at the last commit that was followed, if the log goes back to it. Then takes what
 * was committed. */
struct tw_error *ext4_gather_begin_log(struct ext4_gather *g) TW_MUST_CHECK;
/* Takes what was committed since the last time. */
struct tw_error *ext4_gather_pull(struct ext4_gather *g) TW_MUST_CHECK;
/* Reads the fast commits behind the last commit. The log is looked at once more: when it has gone
 * on, what that brought is fresh. */
struct tw_error *ext4_gather_fast(struct ext4_gather *g) TW_MUST_CHECK;
/* Reads the blocks of the transaction under way. */
struct tw_error *ext4_gather_pending(struct ext4_gather *g) TW_MUST_CHECK;

#endif
