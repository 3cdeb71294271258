/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Who owns a block of a volume: the map from blocks to inodes, kept as intervals in buckets of
 * 1,024 blocks, so that memory and the cost of a change depend on the extents there, not on the
 * disk's size.
 */
#ifndef TW_VIEW_OWNER_H
#define TW_VIEW_OWNER_H

#include "base/error.h"
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

/* Part i of n, in blocks: different threads may set and clear in different parts at the same time.
 */
void tw_owners_part(
	const struct tw_owners *owners, unsigned i, unsigned n, uint64_t *from, uint64_t *to);
/* Gives back the room that is kept for more intervals in a part. */
void tw_owners_fit(struct tw_owners *owners, uint64_t from, uint64_t to);

/* Intervals in the map, for statistics. */
uint64_t tw_owners_count(const struct tw_owners *owners);

#endif
