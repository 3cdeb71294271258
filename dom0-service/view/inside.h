/* SPDX-License-Identifier: BSD-3-Clause */
/* Inside of a view, shared by view.c (inodes), common.c (what inodes share), name.c (names and
 * directories) and path.c. */
#ifndef TW_VIEW_INSIDE_H
#define TW_VIEW_INSIDE_H

#include "view/view.h"

/* What many inodes have in common, kept once. Number 0 is that of a free inode. */
struct tw_common {
	uint64_t xattrs;
	uint32_t flags, uid, gid, rdev;
	uint32_t refs; /* 0: unused; uid is then the next unused one */
	uint16_t mode;
};

struct tw_commons {
	struct tw_common *at;
	uint32_t n, cap, unused;
	uint32_t *places; /* hash table of numbers; 0 is empty */
	uint32_t mask, used;
	uint32_t last; /* the one that was found last */
};

struct tw_error *tw_commons_init(struct tw_commons *commons) TW_MUST_CHECK;
void tw_commons_deinit(struct tw_commons *commons);
/* The number of what attr has in common with others, with a reference. */
struct tw_error *tw_commons_get(
	struct tw_commons *commons, const struct tw_attr *attr, uint32_t *out) TW_MUST_CHECK;
void tw_commons_put(struct tw_commons *commons, uint32_t number);

/* What does not fit into an inode. */
struct tw_body {
	struct tw_extent *extents;
	char *target;
	uint32_t *blocks; /* directory: numbers of dirblocks, by block */
	uint32_t nextents;
	uint32_t target_len;
	uint32_t nblocks, capblocks;
	uint32_t nentries;
};

/* The body of an inode, or NULL. */
static inline struct tw_body *tw_inode_body(const struct tw_inode *inode)
{
	return inode->map & 1 ? NULL : (struct tw_body *)(uintptr_t)inode->map;
}

/* The body of an inode, made when missing. NULL: no memory. */
struct tw_body *tw_inode_body_get(struct tw_inode *inode);

/* Names lie in chunks that never move, at multiples of 4 bytes; a reference is the chunk and the
 * place in it. 0 is no name. */
#define TW_NAME_UNIT 4u
#define TW_NAME_CHUNK_SHIFT 18 /* units: 1 MiB */
#define TW_NAME_CHUNK_UNITS (1u << TW_NAME_CHUNK_SHIFT)
#define TW_NAME_HEADER (offsetof(struct tw_name, bytes))
#define TW_NAME_CLASSES ((14 + 255 + TW_NAME_UNIT - 1) / TW_NAME_UNIT + 1)

/* The names of an inode that has several. */
struct tw_links {
	uint32_t *names;
	uint32_t n; /* 0: unused; cap is then the next unused one */
	uint32_t cap;
};
#define TW_NAME_LINKS 0x80000000u /* inode.name is an index of tw_links */

struct tw_names {
	uint8_t **chunks;
	uint32_t nchunks, capchunks;
	uint32_t fresh; /* first unit of the last chunk that was never used */
	uint32_t unused[TW_NAME_CLASSES];
	uint64_t unused_units, units;
	struct tw_dirblock *dirblocks; /* 0 is none */
	uint32_t ndirblocks, capdirblocks, unused_dirblock;
	struct tw_links *links;
	uint32_t nlinks, caplinks, unused_links;
};

void tw_names_deinit(struct tw_names *names);

/* Inodes live in chunks, so that an empty stretch of a big inode table costs a pointer. */
#define TW_CHUNK_SHIFT 6
#define TW_CHUNK_INODES (1u << TW_CHUNK_SHIFT)

struct tw_view {
	uint32_t max_ino;
	uint32_t root;
	uint32_t blockbits;
	uint64_t ninodes;
	uint64_t nnames;
	struct tw_inode **chunks; /* an inode with ino == 0 is absent */
	struct tw_commons commons;
	struct tw_names names;
	struct tw_owners *owners;
};

#endif
