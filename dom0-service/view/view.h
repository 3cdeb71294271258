/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The view: the inspector's picture of a volume's metadata, always equal to some commit of the
 * guest. It knows inodes, names and extents, and no on-disk format. A file system module fills and
 * moves it. One thread.
 */
#ifndef TW_VIEW_VIEW_H
#define TW_VIEW_VIEW_H

#include "base/error.h"
#include "event/event.h"
#include "view/owner.h"
#include <stdbool.h>
#include <stdint.h>

/* What an event tells of an inode. */
struct tw_attr {
	uint64_t size;
	struct tw_time mtime;
	struct tw_time ctime;
	uint64_t xattrs; /* digest of all extended attributes, 0 without any */
	uint32_t generation;
	uint32_t flags; /* those that a user can set (chattr) */
	uint32_t uid;
	uint32_t gid;
	uint32_t nlink;
	uint32_t rdev; /* major << 20 | minor */
	uint16_t mode; /* type and permissions; 0: the inode is free */
};

struct tw_extent {
	uint64_t block;
	uint32_t lblk;
	uint32_t count;
	bool unwritten;
};

/* A name of an inode in a directory. */
struct tw_name {
	struct tw_name *next_of_inode;
	struct tw_name *next_in_block;
	uint32_t ino;
	uint32_t dir;
	uint64_t block; /* the directory block that holds it */
	uint8_t len;
	bool removed; /* goes in the transaction under way */
	uint8_t bytes[];
};

struct tw_dirblock {
	uint64_t block;
	struct tw_name *names;
};

struct tw_inode {
	struct tw_attr attr;
	uint32_t ino;
	uint32_t nextents;
	uint32_t nblocks;           /* directory: blocks */
	uint32_t nentries;          /* directory: names without . and .. */
	uint32_t map_hash;          /* of the mapping's root as it is on disk; the module's own */
	struct tw_extent *extents;  /* by lblk */
	struct tw_dirblock *blocks; /* by block */
	struct tw_name *names;
	char *target; /* symlink, NUL-terminated for convenience */
	uint32_t target_len;
};

struct tw_view;

/* A view for a volume with inode numbers 1 .. max_ino and nblocks blocks of 1 << blockbits bytes;
 * root is the root directory's number. */
struct tw_error *tw_view_create(uint32_t max_ino, uint32_t root, uint64_t nblocks,
	uint32_t blockbits, struct tw_view **out) TW_MUST_CHECK;
void tw_view_destroy(struct tw_view *view);

/* Makes room for a volume that has grown; a smaller one keeps the room. */
struct tw_error *tw_view_grow(
	struct tw_view *view, uint32_t max_ino, uint64_t nblocks) TW_MUST_CHECK;
uint32_t tw_view_blockbits(const struct tw_view *view);
uint32_t tw_view_root(const struct tw_view *view);
struct tw_owners *tw_view_owners(struct tw_view *view);
uint64_t tw_view_inode_count(const struct tw_view *view);
uint64_t tw_view_name_count(const struct tw_view *view);

/* The inode, or NULL when the view has none of that number. Pointers stay valid until it is
 * dropped. */
struct tw_inode *tw_view_inode(const struct tw_view *view, uint32_t ino);
/* The inode, made with a zero attr when there was none. Errors: TW_BAD_DATA for a number out of
 * range. */
struct tw_error *tw_view_inode_add(
	struct tw_view *view, uint32_t ino, struct tw_inode **out) TW_MUST_CHECK;
/* Forgets an inode that has no names; its directory blocks must be empty. */
void tw_view_inode_drop(struct tw_view *view, uint32_t ino);
/* The first inode with a number >= ino, or NULL. */
struct tw_inode *tw_view_inode_next(const struct tw_view *view, uint32_t ino);

/* Adds a name of ino to directory dir (both are made when missing), held by the directory block. */
struct tw_error *tw_view_name_add(struct tw_view *view, uint32_t dir, uint64_t block, uint32_t ino,
	const void *bytes, uint8_t len, struct tw_name **out) TW_MUST_CHECK;
void tw_view_name_remove(struct tw_view *view, struct tw_name *name);
/* Moves a name to another block of the same directory. */
struct tw_error *tw_view_name_rehome(
	struct tw_view *view, struct tw_name *name, uint64_t block) TW_MUST_CHECK;
/* The entry of a directory block, or NULL when it holds no names. */
struct tw_dirblock *tw_view_dirblock(const struct tw_inode *dir, uint64_t block);

/* Longer paths cannot be named by Linux (PATH_MAX, with its NUL). */
#define TW_PATH_MAX 4095

/* Appends the path of a name to out ("/a/b"). Of a path longer than TW_PATH_MAX only the last
 * components that fit are appended, without the slash before them. False, with nothing appended,
 * when the name cannot be reached from the root (a guest's nonsense: loops, lost directories). */
bool tw_view_path(const struct tw_view *view, const struct tw_name *name, struct tw_buf *out);
/* Appends the path of an inode by its first name; "/" for the root. */
bool tw_view_inode_path(
	const struct tw_view *view, const struct tw_inode *inode, struct tw_buf *out);

/* The kind that a mode's type bits say. */
enum tw_kind tw_mode_kind(uint16_t mode);
/* Fills the fields of an event that describe an inode. The event borrows from the inode. */
void tw_view_describe(
	const struct tw_inode *inode, const struct tw_attr *attr, struct tw_event *event);

/* Takes the blocks of n extents of ino out of the owner map. data_kind is what the inode's blocks
 * are (TW_OWNER_DATA stands for TW_OWNER_UNWRITTEN too where an extent says so). */
struct tw_error *tw_view_release_extents(struct tw_view *view, uint32_t ino,
	const struct tw_extent *extents, uint32_t n, enum tw_owner_kind data_kind) TW_MUST_CHECK;
/* Enters the blocks of n extents of ino into the owner map. */
struct tw_error *tw_view_claim_extents(struct tw_view *view, uint32_t ino,
	const struct tw_extent *extents, uint32_t n, enum tw_owner_kind data_kind) TW_MUST_CHECK;

#endif
