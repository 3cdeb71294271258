/* SPDX-License-Identifier: BSD-3-Clause */
/* Inside of a changeset, shared by change.c (collecting), nameop.c (what happened to names),
 * order.c (in which order) and tell.c (the events). */
#ifndef TW_VIEW_CHANGESET_H
#define TW_VIEW_CHANGESET_H

#include "base/numtab.h"
#include "view/change.h"

enum tw_nameop_kind {
	TW_NAMEOP_CREATE,
	TW_NAMEOP_LINK,
	TW_NAMEOP_RENAME,
	TW_NAMEOP_UNLINK,
	TW_NAMEOP_DELETE,
};

enum tw_nameop_state { TW_NAMEOP_PENDING, TW_NAMEOP_UNDERWAY, TW_NAMEOP_DONE };

/* A slot for a name that comes. */
struct tw_newname {
	uint64_t block;
	uint32_t dir;
	uint32_t ino;
	size_t bytes; /* offset in the set's text */
	uint8_t len;
	bool moved; /* only moved between blocks of its directory */
};

struct tw_nameop {
	enum tw_nameop_kind kind;
	enum tw_nameop_state state;
	bool parked;
	uint32_t ino;
	struct tw_name *from;        /* RENAME, UNLINK, DELETE */
	const struct tw_newname *to; /* CREATE, LINK, RENAME */
	struct tw_nameop *after;     /* what must have happened to the number's old inode before */
	struct tw_nameop *next_in_dir; /* ops that take a name from the same directory */
};

/* Who takes a name out of a slot, which is a directory and bytes. */
struct tw_slot {
	struct tw_name *name; /* NULL: nobody, after all */
	struct tw_nameop *op;
	size_t bytes; /* offset in the set's text */
	uint32_t dir;
	uint32_t next; /* of the slots with this hash: index + 1 */
	uint8_t len;
};

/* A name that goes. */
struct tw_oldname {
	struct tw_name *name;
	struct tw_slot *slot; /* while emitting */
};

/* The ops that wait for, or make, a directory. */
struct tw_dirops {
	uint32_t dir;
	struct tw_nameop *leaving; /* list by next_in_dir */
	struct tw_nameop *making;
};

/* Changes live in chunks: they never move. */
#define TW_CHANGE_SHIFT 7

struct tw_changeset {
	struct tw_view *view;
	tw_emit_fn emit;
	void *arg;
	tw_xattrs_fn xattrs; /* may be NULL */
	void *xattrs_arg;
	struct tw_change **chunks;
	size_t nchunks, capchunks;
	size_t nchanges;          /* in the order in which they began */
	size_t nranges;           /* of all changes, at most */
	struct tw_numtab numbers; /* inode to change */
	struct tw_oldname *removed;
	size_t nremoved, capremoved;
	struct tw_newname *added;
	size_t nadded, capadded;
	struct tw_buf text;
	/* while emitting */
	const struct tw_commit *commit;
	struct tw_slot *slots;
	size_t nslots;
	uint32_t *places; /* hash to slot: index + 1 */
	uint32_t mask;
	struct tw_dirops *dirops;
	size_t ndirops, capdirops;
	struct tw_numtab dirs; /* directory to dirops */
	struct tw_nameop *ops;
	size_t nops;
	struct tw_buf path, old_path;
	bool opaque; /* the path has encrypted names */
};

static inline const char *tw_newname_bytes(
	const struct tw_changeset *set, const struct tw_newname *name)
{
	return set->text.data + name->bytes;
}

static inline struct tw_change *tw_changeset_at(const struct tw_changeset *set, size_t i)
{
	return &set->chunks[i >> TW_CHANGE_SHIFT][i & ((1u << TW_CHANGE_SHIFT) - 1)];
}

/* What is there for a directory, or NULL. */
static inline struct tw_dirops *tw_changeset_dirops(const struct tw_changeset *set, uint32_t dir)
{
	uint64_t i;
	return tw_numtab_get(&set->dirs, dir, &i) ? &set->dirops[i] : NULL;
}

/* The entry for the slot, or NULL when nobody leaves it. */
struct tw_slot *tw_changeset_slot(
	const struct tw_changeset *set, uint32_t dir, const void *bytes, uint8_t len);

/* True when the number of a changed inode means another inode than before. */
bool tw_changeset_replaced(const struct tw_changeset *set, const struct tw_change *change,
	const struct tw_inode *inode);

/* True when an inode is a directory, or still has names in it from when its number was one's. */
bool tw_changeset_is_dir(const struct tw_changeset *set, uint32_t ino);

/* Derives set->ops from the names that came and went. */
struct tw_error *tw_nameops_derive(struct tw_changeset *set) TW_MUST_CHECK;
void tw_nameops_release(struct tw_changeset *set);
/* Carries the ops out, in an order that works, with an event each. */
struct tw_error *tw_nameops_perform(struct tw_changeset *set) TW_MUST_CHECK;

/* Events. The name op is carried out on the view as well. */
struct tw_error *tw_tell_nameop(struct tw_changeset *set, struct tw_nameop *op) TW_MUST_CHECK;
/* Swaps the slots of two renames: a is done by it, b goes on from a's old slot. */
struct tw_error *tw_tell_exchange(
	struct tw_changeset *set, struct tw_nameop *a, struct tw_nameop *b) TW_MUST_CHECK;
/* Moves what op renames to a name of its own in the root directory, out of everybody's way. */
struct tw_error *tw_tell_park(struct tw_changeset *set, struct tw_nameop *op) TW_MUST_CHECK;
/* What is left to say of each changed inode. */
struct tw_error *tw_tell_inodes(struct tw_changeset *set) TW_MUST_CHECK;

#endif
