/* SPDX-License-Identifier: BSD-3-Clause */
/* From one view to a later one of the same volume, without having seen how it came about. */
#include "ext4/ext4.h"

#include <stdlib.h>
#include <sys/stat.h>

static bool same_mapping(const struct tw_inode *a, const struct tw_inode *b)
{
	struct tw_extent one_a, one_b;
	uint32_t n, m;
	const struct tw_extent *x = tw_inode_extents(a, &one_a, &n);
	const struct tw_extent *y = tw_inode_extents(b, &one_b, &m);
	return ext4_same_extents(x, n, y, m);
}

/* Linux writes what a program wrote to a file back within 30 seconds, and looks for it every five; a
 * slow disk takes its time. */
#define WRITEBACK_S 60

/* Of a resync: what it knows of writes that nobody saw. */
struct unseen {
	bool any;       /* there may be some */
	int64_t recent; /* a file that was changed at this time of the guest's clock, or later, may have data
			 * among them */
};

static struct unseen unseen(const struct tw_view *view, const struct tw_missed *missed)
{
	struct unseen ret = {.any = missed->unwatched, .recent = INT64_MAX};
	int64_t newest = INT64_MIN + WRITEBACK_S;
	const struct tw_inode *inode = missed->in_use ? tw_view_inode_next(view, 1) : NULL;
	if (!inode)
		return ret;
	/* No program can set this time: it is the clock's. */
	for (; inode; inode = tw_view_inode_next(view, inode->ino + 1)) {
		const struct tw_attr attr = tw_view_attr(view, inode);
		newest = attr.ctime.sec > newest ? attr.ctime.sec : newest;
	}
	ret.recent = newest - WRITEBACK_S;
	return ret;
}

/* Nobody saw the writes: a file whose times changed may have changed anywhere. */
static bool touched(const struct tw_attr *a, const struct tw_attr *b)
{
	return a->mtime.sec != b->mtime.sec || a->mtime.nsec != b->mtime.nsec ||
	       a->ctime.sec != b->ctime.sec || a->ctime.nsec != b->ctime.nsec;
}

static struct tw_error *move_inode(
	struct ext4 *fs, const struct ext4 *newer, const struct tw_inode *to, struct unseen unseen)
{
	struct tw_inode *inode = tw_view_inode(fs->view, to->ino);
	struct tw_change *change;
	struct tw_attr was = inode ? tw_view_attr(fs->view, inode) : (struct tw_attr){0};
	struct tw_attr now = tw_view_attr(newer->view, to);
	uint64_t old_inline = 0, new_inline = 0;
	tw_numtab_get(&fs->inlines, to->ino, &old_inline);
	tw_numtab_get(&newer->inlines, to->ino, &new_inline);
	const bool late = S_ISREG(now.mode) && now.ctime.sec >= unseen.recent;
	if (inode && ext4_same_attr(&was, &now) && same_mapping(inode, to) &&
		old_inline == new_inline && !late)
		return NULL;
	struct tw_extent one;
	uint32_t n, len;
	const struct tw_extent *extents = tw_inode_extents(to, &one, &n);
	const char *target = tw_inode_target(to, &len);
	TW_TRY(tw_changeset_inode(fs->set, to->ino, &change));
	TW_TRY(tw_view_inode_add(fs->view, to->ino, &inode));
	if (S_ISREG(now.mode)) {
		TW_TRY(ext4_extents_ranges(fs, to->ino, extents, n, change));
		struct ext4_remap remap = {
			.ino = to->ino, .flags = now.flags, .inlined = new_inline};
		TW_TRY(ext4_inline_ranges(fs, &remap, now.size, change));
		if (late || (unseen.any && touched(&change->old, &now)))
			TW_TRY(tw_changeset_range(change, 0, now.size));
	}
	TW_TRY(tw_inode_set_extents(inode, extents, n));
	TW_TRY(tw_inode_set_target(inode, target, len));
	return tw_view_set_attr(fs->view, inode, &now);
}

static struct tw_error *lose_inode(struct ext4 *fs, struct tw_inode *inode)
{
	struct tw_change *change;
	TW_TRY(tw_changeset_inode(fs->set, inode->ino, &change));
	return tw_view_set_attr(fs->view, inode, &(struct tw_attr){0});
}

static int by_bytes_and_inode(const void *a, const void *b)
{
	const struct tw_name *x = *(struct tw_name *const *)a, *y = *(struct tw_name *const *)b;
	int ret = memcmp(x->bytes, y->bytes, x->len < y->len ? x->len : y->len);
	if (!ret)
		ret = (int)x->len - (int)y->len;
	if (!ret)
		ret = x->ino < y->ino ? -1 : x->ino > y->ino;
	return ret;
}

/* The names of a directory, sorted; the caller frees. NULL: no memory. */
static struct tw_name **sorted_names(
	const struct tw_view *view, const struct tw_inode *dir, size_t *n)
{
	uint32_t nentries = dir ? tw_inode_nentries(dir) : 0;
	uint32_t nblocks = dir ? tw_inode_nblocks(dir) : 0;
	*n = 0;
	struct tw_name **names = calloc(nentries + 1ul, sizeof(struct tw_name *));
	if (!names)
		return NULL;
	for (uint32_t b = 0; b < nblocks; b++) {
		struct tw_name *name = tw_view_block_names(view, tw_view_dirblock_at(view, dir, b));
		for (; name; name = tw_view_block_next(view, name))
			names[(*n)++] = name;
	}
	qsort(names, *n, sizeof(struct tw_name *), by_bytes_and_inode);
	return names;
}

static struct tw_error *move_names(struct ext4 *fs, const struct ext4 *newer, struct tw_name **old,
	size_t nold, struct tw_name **new, size_t nnew)
{
	size_t i = 0, k = 0;
	while (i < nold || k < nnew) {
		int cmp = i == nold ? 1 : k == nnew ? -1 : by_bytes_and_inode(&old[i], &new[k]);
		if (cmp < 0)
			TW_TRY(tw_changeset_remove_name(fs->set, old[i]));
		else if (cmp > 0)
			TW_TRY(tw_changeset_add_name(fs->set, tw_view_name_dir(newer->view, new[k]),
				tw_view_name_block(newer->view, new[k]), new[k]->ino, new[k]->bytes,
				new[k]->len));
		i += cmp <= 0;
		k += cmp >= 0;
	}
	return NULL;
}

static struct tw_error *move_dir(struct ext4 *fs, const struct ext4 *newer,
	const struct tw_inode *old, const struct tw_inode *new)
{
	size_t nold, nnew;
	struct tw_name **from = sorted_names(fs->view, old, &nold);
	struct tw_name **to = sorted_names(newer->view, new, &nnew);
	struct tw_error *err =
		from && to ? move_names(fs, newer, from, nold, to, nnew) : tw_error_nomem();
	free(from);
	free(to);
	return err;
}

/* Files of which writes were missed: their blocks may have changed without a trace in metadata. */
struct tw_error *ext4_missed_data(
	struct ext4 *fs, const struct tw_owners *owners, const struct tw_range *missed)
{
	uint64_t block = missed->offset >> fs->geo.blockbits;
	uint64_t end =
		(missed->offset + missed->length + fs->geo.blocksize - 1) >> fs->geo.blockbits;
	struct tw_owner owner;
	while (block < end && tw_owners_find(owners, block, end - block, &owner)) {
		uint64_t first = owner.block > block ? owner.block : block;
		uint64_t stop = owner.block + owner.count < end ? owner.block + owner.count : end;
		struct tw_change *change;
		if (owner.kind == TW_OWNER_DATA) {
			uint64_t lblk = owner.lblk + (first - owner.block);
			TW_TRY(tw_changeset_inode(fs->set, owner.ino, &change));
			TW_TRY(tw_changeset_range(change, lblk << fs->geo.blockbits,
				(stop - first) << fs->geo.blockbits));
		}
		block = stop;
	}
	return NULL;
}

static struct tw_error *collect(struct ext4 *fs, struct ext4 *newer, const struct tw_missed *missed)
{
	const struct tw_inode *to = tw_view_inode_next(newer->view, 1);
	const struct unseen what = unseen(fs->view, missed);
	/* Names first: they are compared by the old view, which the changes leave alone until
	 * emission. */
	for (; to; to = tw_view_inode_next(newer->view, to->ino + 1))
		if (tw_inode_nblocks(to))
			TW_TRY(move_dir(fs, newer, tw_view_inode(fs->view, to->ino), to));
	struct tw_inode *inode = tw_view_inode_next(fs->view, 1);
	for (; inode; inode = tw_view_inode_next(fs->view, inode->ino + 1)) {
		const struct tw_inode *same = tw_view_inode(newer->view, inode->ino);
		if (tw_inode_nblocks(inode) && (!same || !tw_inode_nblocks(same)))
			TW_TRY(move_dir(fs, newer, inode, NULL));
		if (!same)
			TW_TRY(lose_inode(fs, inode));
	}
	for (to = tw_view_inode_next(newer->view, 1); to;
		to = tw_view_inode_next(newer->view, to->ino + 1))
		TW_TRY(move_inode(fs, newer, to, what));
	for (size_t i = 0; i < missed->n; i++)
		TW_TRY(ext4_missed_data(fs, tw_view_owners(newer->view), &missed->ranges[i]));
	return NULL;
}

/* Takes over everything that newer holds but who it is. */
static struct tw_error *take_over(struct ext4 *fs, struct ext4 *newer)
{
	struct ext4 old = *fs;
	*fs = *newer;
	*newer = old;
	struct tw_fs_env env = fs->env;
	fs->env = newer->env;
	newer->env = env;
	fs->env.source.bytes = env.source.bytes;
	if (fs->journal)
		tw_jbd2_set_arg(fs->journal, fs);
	if (newer->journal)
		tw_jbd2_set_arg(newer->journal, newer);
	tw_changeset_destroy(fs->set);
	fs->set = NULL;
	return ext4_changeset(fs);
}

/* Another file system has taken the volume: it begins with nothing. */
static struct tw_error *forget_all(struct ext4 *fs, const struct ext4 *newer)
{
	tw_changeset_destroy(fs->set);
	tw_view_destroy(fs->view);
	tw_numtab_clear(&fs->inlines);
	fs->set = NULL;
	fs->view = NULL;
	TW_TRY(tw_view_create(newer->geo.ninodes, EXT4_ROOT_INO, newer->geo.nblocks,
		newer->geo.blockbits, &fs->view));
	return ext4_changeset(fs);
}

struct tw_error *ext4_resync(
	void *arg, void *newer_arg, const struct tw_missed *missed, struct tw_time now)
{
	struct ext4 *fs = arg, *newer = newer_arg;
	struct tw_commit commit = {now, now, 0, true};
	if (memcmp(fs->geo.uuid_raw, newer->geo.uuid_raw, sizeof(fs->geo.uuid_raw)) ||
		fs->geo.blocksize != newer->geo.blocksize)
		TW_TRY(forget_all(fs, newer));
	TW_TRY(tw_view_grow(fs->view, newer->geo.ninodes, newer->geo.nblocks));
	fs->geo.blockbits = newer->geo.blockbits;
	fs->geo.blocksize = newer->geo.blocksize;
	fs->newer_sets = newer->sets;
	struct tw_error *err = collect(fs, newer, missed);
	if (!err)
		err = tw_changeset_emit(fs->set, &commit);
	fs->newer_sets = NULL;
	return err ? err : take_over(fs, newer);
}

struct tw_error *ext4_announce(void *arg, struct tw_time now)
{
	struct ext4 *fs = arg;
	struct tw_commit commit = {now, now, 0, true};
	struct tw_missed none = {0};
	struct ext4 empty = {.env = fs->env, .geo = fs->geo, .newer_sets = fs->sets};
	struct tw_error *err = forget_all(&empty, fs);
	if (!err)
		err = collect(&empty, fs, &none);
	if (!err)
		err = tw_changeset_emit(empty.set, &commit);
	tw_changeset_destroy(empty.set);
	tw_view_destroy(empty.view);
	ext4_xattr_diff_deinit(&empty.diff);
	return err;
}
