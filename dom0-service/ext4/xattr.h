/* SPDX-License-Identifier: BSD-3-Clause */
/* Extended attributes on disk (attributes.rst), and the names and values that an inode's digest of
 * them stands for. */
#ifndef TW_EXT4_XATTR_H
#define TW_EXT4_XATTR_H

#include "base/buf.h"
#include "base/error.h"
#include "base/pack.h"
#include "base/span.h"
#include "event/event.h"

/* --- xattr.c: reading them --- */

/* Where attributes stand: in an inode, or in a block. */
struct ext4_xattrs {
	struct tw_span entries;
	struct tw_span base; /* offsets of values count from its start */
	size_t off;
};

struct ext4_xattr {
	uint8_t index; /* namespace */
	uint8_t len;
	const uint8_t *name;
	uint64_t value; /* digest */
};

/* Without the magic there are none. The bytes are borrowed. */
struct ext4_xattrs ext4_xattrs_of_inode(struct tw_span region);
struct ext4_xattrs ext4_xattrs_of_block(struct tw_span block);
/* The next one, or false at the end. What is hidden (the inline data of the inode) is left out. */
bool ext4_xattr_next(struct ext4_xattrs *list, struct ext4_xattr *out);
/* A digest that does not depend on the order of entries, on padding, on a block's reference count,
 * or on where the attributes stand: the sum over all of them, 0 without any. */
uint64_t ext4_xattrs_digest(struct ext4_xattrs list);
/* The part of inline data that is an attribute's value; empty when there is none. */
struct tw_span ext4_xattr_inline_data(struct tw_span region);

/* --- xattrset.c: sets of attributes by their digest --- */

struct ext4_xattr_sets;

void ext4_xattr_sets_destroy(struct ext4_xattr_sets *sets); /* NULL is fine */
/* Keeps what a digest stands for, unless it is known: the attributes of the list and those of the
 * set that has the digest `more`. Makes *sets when it is NULL. */
struct tw_error *ext4_xattr_sets_keep(struct ext4_xattr_sets **sets, uint64_t digest,
	struct ext4_xattrs list, uint64_t more) TW_MUST_CHECK;
/* Forgets those that were not marked since the last time. due() says when that is worth its cost:
 * as many have come as were left the last time, and as the cost of marking. */
bool ext4_xattr_sets_due(const struct ext4_xattr_sets *sets, size_t cost);
void ext4_xattr_sets_mark(struct ext4_xattr_sets *sets, uint64_t digest);
void ext4_xattr_sets_sweep(struct ext4_xattr_sets *sets);
size_t ext4_xattr_sets_count(const struct ext4_xattr_sets *sets);

/* Which attributes came or changed between two digests, and which went; each set may be in either
 * of the tables. The names are full ones (user.x), sorted, and live until the next call with this
 * diff. */
struct ext4_xattr_diff {
	struct tw_buf text;
	struct tw_bytes *names; /* first those that were set, then those that were removed */
	size_t nset, nremoved, cap;
};
struct tw_error *ext4_xattr_sets_diff(const struct ext4_xattr_sets *sets,
	const struct ext4_xattr_sets *others, uint64_t old, uint64_t now,
	struct ext4_xattr_diff *out) TW_MUST_CHECK;
void ext4_xattr_diff_deinit(struct ext4_xattr_diff *diff);

void ext4_xattr_sets_save(const struct ext4_xattr_sets *sets, struct tw_buf *out);
struct tw_error *ext4_xattr_sets_load(
	struct ext4_xattr_sets **sets, struct tw_unpack *in) TW_MUST_CHECK;

#endif
