/* SPDX-License-Identifier: BSD-3-Clause */
/* Inside of a view, shared by view.c (inodes), common.c (what inodes share), name.c (names and
 * directories) and path.c. */
#ifndef TW_VIEW_INSIDE_H
#define TW_VIEW_INSIDE_H

#include "base/slab.h"
#include "view/view.h"

#include <sys/stat.h>

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

/* A single extent in map: 1, unwritten, 14 bits of count, 48 of block. */
#define TW_MAP_UNWRITTEN 2u
#define TW_MAP_COUNT_SHIFT 2
#define TW_MAP_COUNT_MAX ((1u << 14) - 1)
#define TW_MAP_BLOCK_SHIFT 16

static inline bool tw_map_fits(const struct tw_extent *e)
{
	return !e->lblk && e->count <= TW_MAP_COUNT_MAX && !(e->block >> 48);
}

static inline uint64_t tw_map_pack(const struct tw_extent *e)
{
	return e->block << TW_MAP_BLOCK_SHIFT | e->count << TW_MAP_COUNT_SHIFT |
	       (e->unwritten ? TW_MAP_UNWRITTEN : 0) | 1;
}

static inline struct tw_extent tw_map_unpack(uint64_t map)
{
	return (struct tw_extent){.block = map >> TW_MAP_BLOCK_SHIFT,
		.count = map >> TW_MAP_COUNT_SHIFT & TW_MAP_COUNT_MAX,
		.unwritten = (map & TW_MAP_UNWRITTEN) != 0};
}

/* The body of an inode, made when missing. NULL: no memory. */
struct tw_body *tw_inode_body_get(struct tw_inode *inode);

/* Names lie in chunks that never move, at multiples of 4 bytes; a reference is the chunk and the
 * place in it. 0 is no name. */
#define TW_NAME_UNIT 4u
#define TW_NAME_CHUNK_SHIFT 16 /* units: 256 KiB */
#define TW_NAME_CHUNK_UNITS (1u << TW_NAME_CHUNK_SHIFT)
/* The last ones of a chunk are left out, so that chunks fill what the slab gets from the kernel. */
#define TW_NAME_CHUNK_END (TW_NAME_CHUNK_UNITS - 16 / TW_NAME_UNIT)
#define TW_NAME_HEADER (offsetof(struct tw_name, bytes))
#define TW_NAME_CLASSES ((14 + 255 + TW_NAME_UNIT - 1) / TW_NAME_UNIT + 1)

/* Directory blocks lie in chunks that never move. */
#define TW_DIRCHUNK_SHIFT 8
#define TW_DIRCHUNK (1u << TW_DIRCHUNK_SHIFT)

/* The names of an inode that has several. */
struct tw_links {
	uint32_t *names;
	uint32_t n; /* 0: unused; cap is then the next unused one */
	uint32_t cap;
};
#define TW_NAME_LINKS 0x80000000u /* inode.name is an index of tw_links */

struct tw_names {
	struct tw_slab slab;
	uint8_t **chunks;
	uint32_t nchunks, capchunks;
	uint32_t fresh; /* first unit of the last chunk that was never used */
	uint32_t unused[TW_NAME_CLASSES];
	uint64_t unused_units, units;
	struct tw_dirblock **dirblocks; /* chunks; number 0 is none */
	uint32_t ndirchunks, capdirchunks;
	uint32_t ndirblocks, unused_dirblock;
	struct tw_links *links;
	uint32_t nlinks, caplinks, unused_links;
};

void tw_names_deinit(struct tw_names *names);

/* The units that a name of so many bytes takes. */
static inline uint32_t tw_name_units(uint8_t len)
{
	return (uint32_t)((TW_NAME_HEADER + len + TW_NAME_UNIT - 1) / TW_NAME_UNIT);
}

/* A new chunk for names, or for directory blocks. False: no memory, or too many. */
bool tw_names_chunk(struct tw_names *names);
bool tw_names_dirchunk(struct tw_names *names);

static inline struct tw_dirblock *tw_dirblock_number(const struct tw_names *names, uint32_t number)
{
	return &names->dirblocks[number >> TW_DIRCHUNK_SHIFT][number & (TW_DIRCHUNK - 1)];
}

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
	struct tw_slab slab;      /* of the chunks */
	struct tw_commons commons;
	struct tw_names names;
	struct tw_owners *owners;
	struct tw_path_memo *memo;
};

/* The path of the directory that a name was last asked about: names that are told one after the
 * other mostly share it. */
struct tw_path_memo {
	uint32_t dir; /* 0: none */
	size_t len;
	char text[TW_PATH_MAX]; /* "" for the root */
};

/* A name of the inode comes or goes: if it may be a directory, paths change. */
static inline void tw_path_forget(struct tw_view *view, const struct tw_inode *inode)
{
	struct tw_path_memo *memo = view->memo;
	if (memo->dir && (inode->ino == memo->dir || tw_inode_nblocks(inode) ||
				 S_ISDIR(tw_view_mode(view, inode))))
		memo->dir = 0;
}

/* Packs an attr into an inode, with the number of its common part. */
void tw_inode_pack(struct tw_inode *inode, const struct tw_attr *attr, uint32_t common);
/* The chunk of an inode number that the volume has, made when missing. NULL: no memory. */
struct tw_inode *tw_view_chunk(struct tw_view *view, uint32_t ino);
/* The name of a reference, or NULL for 0. */
struct tw_name *tw_view_name_at(const struct tw_view *view, uint32_t ref);
/* Gives an inode one more name. */
struct tw_error *tw_view_link_name(
	struct tw_view *view, struct tw_inode *inode, uint32_t ref) TW_MUST_CHECK;

#endif
