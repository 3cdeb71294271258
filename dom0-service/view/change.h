/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A changeset: what one transaction changed in a view, collected by a file system module in any
 * order, then turned into events that can be applied one by one. Emitting moves the view's names.
 *
 * The module calls tw_changeset_inode() before it changes an inode of the view, then writes the new
 * attr and extents into the view itself, and reports names and ranges here.
 */
#ifndef TW_VIEW_CHANGE_H
#define TW_VIEW_CHANGE_H

#include "base/pack.h"
#include "view/view.h"

/* Takes one event; the sequence is filled in by the receiver. The event is borrowed. */
typedef struct tw_error *(*tw_emit_fn)(struct tw_event *event, void *arg);

struct tw_changeset;

/* An inode that the transaction changed. */
struct tw_change {
	struct tw_changeset *set;
	uint32_t ino;
	struct tw_attr old; /* mode 0: it was not there */
	char *old_target;   /* symlink; owned */
	uint32_t old_target_len;
	bool entries; /* directory: names came or went */
	bool told;    /* an event of this transaction carried its new state */
	bool created;
	/* of bytes that changed, in the order in which they were reported */
	struct tw_range *ranges;
	size_t nranges;
	size_t capranges;    /* 0: ranges is one, or nothing */
	struct tw_range one; /* most changes have no more */
};

/* When and by what the changes came. */
struct tw_commit {
	struct tw_time time;     /* the guest's */
	struct tw_time observed; /* dom0's */
	uint32_t transaction;    /* 0: no journal transaction */
	bool resync;
};

/* Fills in the names of the extended attributes that differ between two digests. They are borrowed
 * until the next call. */
typedef struct tw_error *(*tw_xattrs_fn)(
	void *arg, uint64_t old, uint64_t now, struct tw_event *event);

struct tw_error *tw_changeset_create(
	struct tw_view *view, tw_emit_fn emit, void *arg, struct tw_changeset **out) TW_MUST_CHECK;
void tw_changeset_destroy(struct tw_changeset *set);
/* Who knows the names of extended attributes; without, they are not told. */
void tw_changeset_set_xattrs(struct tw_changeset *set, tw_xattrs_fn xattrs, void *arg);

/* The change of an inode, begun with the inode's present state on the first call. Valid until
 * emitted. */
struct tw_error *tw_changeset_inode(
	struct tw_changeset *set, uint32_t ino, struct tw_change **out) TW_MUST_CHECK;
/* The change of an inode that was begun, or NULL. */
struct tw_change *tw_changeset_find(struct tw_changeset *set, uint32_t ino);
/* Adds bytes of the file that changed, in any order. When very many wait, in one file or in all,
 * those next to each other are joined over what lies between them. */
struct tw_error *tw_changeset_range(
	struct tw_change *change, uint64_t offset, uint64_t length) TW_MUST_CHECK;
/* The name goes. It stays in the view until emission. */
struct tw_error *tw_changeset_remove_name(
	struct tw_changeset *set, struct tw_name *name) TW_MUST_CHECK;
/* A name comes; bytes are copied. */
struct tw_error *tw_changeset_add_name(struct tw_changeset *set, uint32_t dir, uint64_t block,
	uint32_t ino, const void *bytes, uint8_t len) TW_MUST_CHECK;
/* True when the number means another inode than before the transaction. */
bool tw_change_identity(const struct tw_change *change, const struct tw_attr *now);

/* Ranges that were reported and not emitted yet, as bytes and back. Nothing else waits between
 * transactions. */
void tw_changeset_save_ranges(const struct tw_changeset *set, struct tw_buf *out);
struct tw_error *tw_changeset_load_ranges(
	struct tw_changeset *set, struct tw_unpack *in) TW_MUST_CHECK;

/* Gives up what was collected, after an error: nothing of it is told, and the inodes of the view
 * that were not told of are what they were, so that a resync finds the differences. Ranges of file
 * data wait for it; extents are lost. */
void tw_changeset_abandon(struct tw_changeset *set);

/* Emits the events in an order in which they can be applied, and empties the set. After an error it
 * has to be abandoned or destroyed. */
struct tw_error *tw_changeset_emit(
	struct tw_changeset *set, const struct tw_commit *commit) TW_MUST_CHECK;

#endif
