/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The view: the inspector's picture of a volume's metadata, always equal to some commit of the
 * guest. It knows inodes, names and extents, and no on-disk format. A file system module fills and
 * moves it. One thread.
 *
 * It has to hold millions of inodes, so it is packed: what most inodes share (owner, mode, flags,
 * extended attributes) is kept once, a file's only extent lies in the inode, names lie end to end.
 * Read and write it by the functions below.
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
	uint64_t size; /* below TW_SIZE_MAX */
	struct tw_time mtime;
	struct tw_time ctime;
	uint64_t xattrs; /* digest of all extended attributes, 0 without any */
	uint32_t generation;
	uint32_t
		flags; /* FS_*_FL of linux/fs.h: those that a user can set (chattr), and the next */
	uint32_t uid;
	uint32_t gid;
	uint32_t nlink; /* at most 65,535 */
	uint32_t rdev;  /* major << 20 | minor */
	uint16_t mode;  /* type and permissions; 0: the inode is free */
};

/* The content is in the inode, not in extents: told of as content, not as an attribute. */
#define TW_FLAG_INLINE 0x10000000u

/* The content is encrypted; of a directory, the names. */
#define TW_FLAG_ENCRYPTED 0x800u

/* No file system of Linux makes longer files. */
#define TW_SIZE_MAX ((1ull << 48) - 1)

struct tw_extent {
	uint64_t block;
	uint32_t lblk;
	uint32_t count : 31;
	uint32_t unwritten : 1;
};
#define TW_EXTENT_MAX 0x7fffffffu

/* An inode. Only the number is for everybody to read. */
struct tw_inode {
	uint64_t size_links;
	uint64_t mtime, ctime;
	uint64_t map;
	uint32_t ino;
	uint32_t common;
	uint32_t generation;
	uint32_t name;
};

/* A name of an inode in a directory. */
struct tw_name {
	uint32_t next;   /* private */
	uint32_t holder; /* private */
	uint32_t ino;
	uint8_t len;
	bool removed : 1; /* goes in the transaction under way */
	bool opaque : 1;  /* encrypted: paths show its bytes in base64 */
	uint8_t bytes[];
};

/* A directory block that holds names. */
struct tw_dirblock {
	uint64_t block;
	uint32_t dir;
	/* private */
	uint32_t names;
	uint32_t live, dead;
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

/* --- inodes --- */

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

struct tw_attr tw_view_attr(const struct tw_view *view, const struct tw_inode *inode);
struct tw_error *tw_view_set_attr(
	struct tw_view *view, struct tw_inode *inode, const struct tw_attr *attr) TW_MUST_CHECK;
uint16_t tw_view_mode(const struct tw_view *view, const struct tw_inode *inode);
uint32_t tw_view_flags(const struct tw_view *view, const struct tw_inode *inode);

/* The extents of an inode by lblk. They are valid until they are set again; one is room for a
 * single one. */
const struct tw_extent *tw_inode_extents(
	const struct tw_inode *inode, struct tw_extent *one, uint32_t *n);
/* Sets the extents of an inode to a copy of these. Who owns the blocks is another matter. */
struct tw_error *tw_inode_set_extents(
	struct tw_inode *inode, const struct tw_extent *extents, uint32_t n) TW_MUST_CHECK;

/* The target of a symlink, with a NUL behind it, or NULL. */
const char *tw_inode_target(const struct tw_inode *inode, uint32_t *len);
/* Sets the target to a copy; NULL for none. */
struct tw_error *tw_inode_set_target(
	struct tw_inode *inode, const void *target, uint32_t len) TW_MUST_CHECK;

/* How many attrs differ in what inodes share: the cost of the next. */
uint32_t tw_view_commons(const struct tw_view *view);
/* Calls each() for every digest of extended attributes that an inode has, some more than once. */
void tw_view_xattrs(
	const struct tw_view *view, void (*each)(void *arg, uint64_t xattrs), void *arg);

/* --- names --- */

/* Adds a name of ino to directory dir (both are made when missing), held by the directory block. */
struct tw_error *tw_view_name_add(struct tw_view *view, uint32_t dir, uint64_t block, uint32_t ino,
	const void *bytes, uint8_t len, struct tw_name **out) TW_MUST_CHECK;
void tw_view_name_remove(struct tw_view *view, struct tw_name *name);
/* Moves a name to another block of the same directory. */
struct tw_error *tw_view_name_rehome(
	struct tw_view *view, struct tw_name *name, uint64_t block) TW_MUST_CHECK;

uint32_t tw_view_name_dir(const struct tw_view *view, const struct tw_name *name);
uint64_t tw_view_name_block(const struct tw_view *view, const struct tw_name *name);
/* The names of an inode, from 0, the oldest first; NULL behind the last one. The first one is the
 * one that paths use. */
struct tw_name *tw_view_link(const struct tw_view *view, const struct tw_inode *inode, uint32_t i);
bool tw_inode_named(const struct tw_inode *inode);

/* --- directories --- */

/* Names in a directory, without . and .. */
uint32_t tw_inode_nentries(const struct tw_inode *dir);
/* Blocks of a directory that hold names. */
uint32_t tw_inode_nblocks(const struct tw_inode *dir);
/* The i-th of them, by block number. Valid until names come or go. */
struct tw_dirblock *tw_view_dirblock_at(
	const struct tw_view *view, const struct tw_inode *dir, uint32_t i);
/* The entry of a directory block, or NULL when it holds no names. */
struct tw_dirblock *tw_view_dirblock(
	const struct tw_view *view, const struct tw_inode *dir, uint64_t block);
/* The names in a block: the first one, and the one after it; NULL at the end. */
struct tw_name *tw_view_block_names(const struct tw_view *view, const struct tw_dirblock *holder);
struct tw_name *tw_view_block_next(const struct tw_view *view, const struct tw_name *name);

/* --- paths --- */

/* Longer paths cannot be named by Linux (PATH_MAX, with its NUL). */
#define TW_PATH_MAX 4095

/* Appends the path of a name to out ("/a/b"). Encrypted names, which may hold any byte, are in
 * base64 for URLs, without padding. Of a path longer than TW_PATH_MAX only the last
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

/* --- owners --- */

/* Takes the blocks of n extents of ino out of the owner map. data_kind is what the inode's blocks
 * are (TW_OWNER_DATA stands for TW_OWNER_UNWRITTEN too where an extent says so). */
struct tw_error *tw_view_release_extents(struct tw_view *view, uint32_t ino,
	const struct tw_extent *extents, uint32_t n, enum tw_owner_kind data_kind) TW_MUST_CHECK;
/* Enters the blocks of n extents of ino into the owner map. */
struct tw_error *tw_view_claim_extents(struct tw_view *view, uint32_t ino,
	const struct tw_extent *extents, uint32_t n, enum tw_owner_kind data_kind) TW_MUST_CHECK;

#endif
