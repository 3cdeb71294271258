/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Who owns a block of a volume: the map from blocks to inodes, kept as intervals in buckets of
 * 1,024 blocks, so that memory and the cost of a change depend on the extents there, not on the
 * disk's size.
 */
#ifndef TW_VIEW_OWNER_H
#define TW_VIEW_OWNER_H

#include "base/error.h"
#include "base/slab.h"
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

enum tw_owner_kind {
	TW_OWNER_NONE,
	TW_OWNER_DATA,      /* content of a file */
	TW_OWNER_UNWRITTEN, /* allocated, reads as zeroes until a transaction says otherwise */
	TW_OWNER_DIR,       /* directory entries */
	TW_OWNER_NODE,      /* extent tree node or indirect block */
	TW_OWNER_SYMLINK,   /* target of a slow symlink */
	TW_OWNER_JOURNAL,   /* content of the journal inode */
	TW_OWNER_SYSTEM,    /* content of another reserved inode */
	TW_OWNER_TABLE,     /* inode table; no inode owns it */
};

/* An interval of blocks with one owner; lblk is the logical block that the first one is of ino. */
struct tw_owner {
	uint64_t block;
	uint32_t count;
	uint32_t ino;
	uint32_t lblk;
	enum tw_owner_kind kind;
};

struct tw_owners;

/* A map for a volume of nblocks blocks. */
struct tw_error *tw_owners_create(uint64_t nblocks, struct tw_owners **out) TW_MUST_CHECK;
/* Makes room for a volume that has grown. */
struct tw_error *tw_owners_grow(struct tw_owners *owners, uint64_t nblocks) TW_MUST_CHECK;
void tw_owners_destroy(struct tw_owners *owners);

/* Gives the interval to its owner, taking it from whoever had parts of it. Blocks beyond the volume
 * are passed over. */
struct tw_error *tw_owners_set(
	struct tw_owners *owners, const struct tw_owner *owner) TW_MUST_CHECK;

/* Takes what ino owns with this kind in [block, block + count) from it; other owners' parts stay.
 */
struct tw_error *tw_owners_clear(struct tw_owners *owners, uint64_t block, uint64_t count,
	uint32_t ino, enum tw_owner_kind kind) TW_MUST_CHECK;

/* The interval that contains block, or the first one after it that begins before block + within.
 * False: there is none. The interval may begin before block. */
bool tw_owners_find(
	const struct tw_owners *owners, uint64_t block, uint64_t within, struct tw_owner *out);

/* From now on it is noted where metadata comes and goes (every kind but file data), for whoever
 * follows that. Not before threads are done with it. */
struct tw_error *tw_owners_take_notes(struct tw_owners *owners) TW_MUST_CHECK;
/* The next range of blocks where it has: 1; 0: no more. -1: it was too much to note, and may be
 * anywhere; then it is noted anew. */
int tw_owners_next_note(struct tw_owners *owners, uint64_t *block, uint64_t *count);

/* --- filling a map, by several threads at the same time ---
 * Meanwhile nothing else is done with the map. Who has which block in the end depends on the numbers
 * of the inodes alone, not on which thread was faster. */

struct tw_fill;

/* One thread's access. It locks others out of the bucket that it wrote to last, so that a run of
 * intervals costs one lock. */
struct tw_filler {
	struct tw_fill *fill;
	struct bucket *bucket; /* private, as what follows */
	pthread_mutex_t *held;
	struct tw_slab pool; /* buckets are in it until they are put in order */
	void *spare[32];     /* of it: lists by size */
};

struct tw_error *tw_fill_begin(struct tw_owners *owners, struct tw_fill **out) TW_MUST_CHECK;
/* Enters an interval, as tw_owners_set(); of two inodes that claim a block the higher number gets
 * it. The intervals of an inode come from one thread, by lblk. */
struct tw_error *tw_fill_add(
	struct tw_filler *filler, const struct tw_owner *owner) TW_MUST_CHECK;
/* Lets others in: before the thread does something that takes long, and when it is done. */
void tw_fill_rest(struct tw_filler *filler);
/* When all is entered: part i of n of the map is put in order. The parts may be done at the same
 * time. */
struct tw_error *tw_fill_settle(struct tw_fill *fill, unsigned i, unsigned n) TW_MUST_CHECK;
/* Parts that were not put in order are lost: the map is good for nothing but to be destroyed. */
void tw_fill_end(struct tw_fill *fill);
/* Gives memory back, when all parts are in order or the filling has ended. */
void tw_filler_deinit(struct tw_filler *filler);

/* Intervals in the map, for statistics. */
uint64_t tw_owners_count(const struct tw_owners *owners);

#endif
