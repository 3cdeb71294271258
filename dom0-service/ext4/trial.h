/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What is written in place to a volume without a journal, on trial: which inodes hang together with
 * what they need, and which have to wait. For trial.c, unjournaled.c and claims.c only; a trial
 * lives as long as one settle.
 */
#ifndef TW_EXT4_TRIAL_H
#define TW_EXT4_TRIAL_H

#include "ext4/ext4.h"

struct ext4_span {
	uint64_t block, end;
};

/* An inode of which something was written. */
struct ext4_suspect {
	uint32_t ino;
	bool slot;           /* its slot changed: */
	bool tracked;        /* ... it is in use, */
	struct tw_attr now;  /* ... and has become this */
	bool attributes;     /* ... with a block of extended attributes */
	bool walked;         /* its mapping, which may be another one, has been read: */
	struct ext4_map map; /* ... this; empty when it has gone */
	bool missing;        /* a block of it has not been written yet */
	bool uneven;         /* it does not have as many blocks as it says */
	int64_t names;       /* those that came, less those that went */
	int64_t entries; /* names in it that came, less those that went, without those that wait */
	struct ext4_span *spans; /* the blocks of its mapping in ascending order, when asked for */
	size_t nspans;
	uint32_t by; /* a directory whose slot brings or takes a name of it: it waits as well */
	UT_hash_handle hh;
};

/* A place for a name that one took or left. Key: directory and bytes. */
struct ext4_place {
	uint32_t went, came; /* inodes, or 0 */
	bool stays;          /* the one that is there does not go */
	UT_hash_handle hh;
	uint8_t key[4 + 255];
};

struct ext4_trial {
	struct ext4 *fs;
	struct tw_time now;
	bool last; /* nothing more comes: only what cannot be told waits */
	struct ext4_blockset *blocks;
	struct ext4_reader reader;
	struct ext4_suspect *suspects;
	struct ext4_place *places;
	bool outside;            /* an inode of the table has its extended attributes in a block */
	uint32_t by;             /* whose slot brings or takes the names that are compared */
	struct ext4_block *held; /* by inode number; digest: since when, in seconds */
};

/* --- trial.c --- */

/* The suspect of this number, made when there is none. */
struct tw_error *ext4_trial_suspect(
	struct ext4_trial *t, uint32_t ino, struct ext4_suspect **out) TW_MUST_CHECK;
/* The place of a name, or NULL. */
struct ext4_place *ext4_trial_place_find(
	const struct ext4_trial *t, uint32_t dir, const uint8_t *bytes, uint8_t len);
/* The same, made when there is none. */
struct tw_error *ext4_trial_place(struct ext4_trial *t, uint32_t dir, const uint8_t *bytes,
	uint8_t len, struct ext4_place **out) TW_MUST_CHECK;
/* Forgets suspects and places; who waits stays. */
void ext4_trial_forget(struct ext4_trial *t);

/* --- unjournaled.c --- */

/* The inode waits. TW_GAP when it has for too long. */
struct tw_error *ext4_trial_hold(struct ext4_trial *t, uint32_t ino) TW_MUST_CHECK;
bool ext4_trial_holds(const struct ext4_trial *t, uint32_t ino);
/* True when an inode is told as it stands, even if it contradicts itself. */
bool ext4_trial_waited(const struct ext4_trial *t, uint32_t ino);

/* --- claims.c --- */

/* Whether the mapping of a suspect, walked without anything missing, has another number of blocks
 * than its inode says: sectors (i_blocks) and flags (i_flags) of the inode, and whether it has a
 * block of extended attributes. Then its nodes are older or newer than the inode. */
bool ext4_claims_uneven(const struct ext4 *fs, const struct ext4_map *map, uint32_t flags,
	uint64_t sectors, bool attribute_block);
/* Makes wait who takes a block that another inode does not let go of; *more is set when there was
 * one. */
struct tw_error *ext4_claims_hold(struct ext4_trial *t, bool *more) TW_MUST_CHECK;

#endif
