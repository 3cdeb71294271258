/* SPDX-License-Identifier: BSD-3-Clause */
/* The events of a changeset, each told while the view is just there where the event leaves it. */
#include "view/changeset.h"
#include "view/ranges.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What an upper bound of ranges an event carries; more are joined over the smallest holes. */
#define MAX_RANGES 1024

static struct tw_event begin(const struct tw_changeset *set, enum tw_event_type type)
{
	return (struct tw_event){
		.type = type,
		.time = set->commit->time,
		.observed = set->commit->observed,
		.transaction = set->commit->transaction,
		.resync = set->commit->resync,
	};
}

static struct tw_bytes bytes_of(const struct tw_buf *buf)
{
	return (struct tw_bytes){buf->data, buf->len};
}

static bool name_path(struct tw_changeset *set, const struct tw_name *name, struct tw_buf *out)
{
	tw_buf_reset(out);
	set->opaque = name->opaque;
	return tw_view_path(set->view, name, out);
}

static void tidy_ranges(struct tw_change *change, uint64_t size)
{
	size_t n = tw_ranges_tidy(change->ranges, change->nranges, size);
	change->nranges = tw_ranges_limit(change->ranges, n, MAX_RANGES);
}

static struct tw_error *send(struct tw_changeset *set, struct tw_event *event)
{
	if (set->path.failed || set->old_path.failed)
		return tw_error_nomem();
	event->encrypted |= set->opaque;
	return set->emit(event, set->arg);
}

/* Of a file that comes, all content is new: also what was written before it had a name. */
static struct tw_error *all_content(struct tw_changeset *set, struct tw_change *change,
	const struct tw_inode *inode, const struct tw_attr *attr)
{
	uint32_t bits = tw_view_blockbits(set->view);
	struct tw_extent one;
	uint32_t n;
	const struct tw_extent *e = tw_inode_extents(inode, &one, &n);
	change->nranges = 0;
	if (tw_mode_kind(attr->mode) != TW_KIND_FILE)
		return NULL;
	if (attr->flags & TW_FLAG_INLINE)
		return tw_changeset_range(change, 0, attr->size);
	for (; n--; e++)
		if (!e->unwritten)
			TW_TRY(tw_changeset_range(
				change, (uint64_t)e->lblk << bits, (uint64_t)e->count << bits));
	tidy_ranges(change, attr->size);
	return NULL;
}

/* The names of attributes that differ from the inode's old state; of a file that comes, all. */
static struct tw_error *name_xattrs(struct tw_changeset *set, const struct tw_change *change,
	const struct tw_attr *attr, struct tw_event *event)
{
	uint64_t was = event->type == TW_EVENT_FILE_CREATED ? 0 : change->old.xattrs;
	event->xattrs = NULL;
	event->nxattrs_set = event->nxattrs_removed = 0;
	if (!set->xattrs || was == attr->xattrs)
		return NULL;
	if (event->type != TW_EVENT_FILE_CREATED && event->type != TW_EVENT_FILE_ATTRIBUTES)
		return NULL;
	return set->xattrs(set->xattrs_arg, was, attr->xattrs, event);
}

/* An event about the inode as it now is. */
static struct tw_error *send_inode(
	struct tw_changeset *set, struct tw_event *event, const struct tw_inode *inode)
{
	struct tw_change *change = tw_changeset_find(set, inode->ino);
	struct tw_attr attr = tw_view_attr(set->view, inode);
	tw_view_describe(inode, &attr, event);
	/* It may have been there before, without a name, and be what it was. */
	if (!change && event->type == TW_EVENT_FILE_CREATED)
		TW_TRY(tw_changeset_inode(set, inode->ino, &change));
	if (change) {
		change->told = true;
		if (event->type == TW_EVENT_FILE_CREATED) {
			change->created = true;
			TW_TRY(all_content(set, change, inode, &attr));
			event->ranges = change->ranges;
			event->nranges = change->nranges;
		}
		TW_TRY(name_xattrs(set, change, &attr, event));
	}
	return send(set, event);
}

/* An event about an inode that has no name any more, or none of this identity: as it last was. */
static struct tw_error *send_gone(struct tw_changeset *set, struct tw_event *event, uint32_t ino)
{
	const struct tw_inode *inode = tw_view_inode(set->view, ino);
	const struct tw_change *change = tw_changeset_find(set, ino);
	if (!inode)
		return NULL;
	struct tw_attr was = change ? change->old : tw_view_attr(set->view, inode);
	was.nlink = 0;
	tw_view_describe(inode, &was, event);
	event->target = (struct tw_bytes){NULL, 0};
	if (change && event->kind == TW_KIND_SYMLINK)
		event->target = (struct tw_bytes){change->old_target, change->old_target_len};
	return send(set, event);
}

static void entries_changed(struct tw_changeset *set, uint32_t dir)
{
	struct tw_change *change = tw_changeset_find(set, dir);
	if (change)
		change->entries = true;
}

static struct tw_error *take_name(
	struct tw_changeset *set, struct tw_nameop *op, struct tw_event *event)
{
	bool known = name_path(set, op->from, &set->path);
	entries_changed(set, tw_view_name_dir(set->view, op->from));
	tw_view_name_remove(set->view, op->from);
	op->from = NULL;
	if (!known)
		return NULL;
	event->path = bytes_of(&set->path);
	const struct tw_inode *inode = tw_view_inode(set->view, op->ino);
	const struct tw_change *change = tw_changeset_find(set, op->ino);
	bool replaced = change && inode && tw_changeset_replaced(set, change, inode);
	if (op->kind == TW_NAMEOP_UNLINK && inode && !replaced)
		return send_inode(set, event, inode);
	return send_gone(set, event, op->ino);
}

static struct tw_error *give_name(
	struct tw_changeset *set, const struct tw_newname *to, struct tw_name **out)
{
	entries_changed(set, to->dir);
	return tw_view_name_add(
		set->view, to->dir, to->block, to->ino, tw_newname_bytes(set, to), to->len, out);
}

static struct tw_error *rename_to(struct tw_changeset *set, struct tw_nameop *op,
	const struct tw_newname *to, struct tw_name **out)
{
	struct tw_event event = begin(set, TW_EVENT_FILE_RENAMED);
	/* An exchange may have brought it where it belongs. */
	if (tw_view_name_dir(set->view, op->from) == to->dir && op->from->len == to->len &&
		!memcmp(op->from->bytes, tw_newname_bytes(set, to), to->len)) {
		*out = op->from;
		return tw_view_name_rehome(set->view, op->from, to->block);
	}
	bool known = name_path(set, op->from, &set->old_path);
	entries_changed(set, tw_view_name_dir(set->view, op->from));
	tw_view_name_remove(set->view, op->from);
	op->from = NULL;
	TW_TRY(give_name(set, to, out));
	if (!known || !name_path(set, *out, &set->path))
		return NULL;
	event.path = bytes_of(&set->path);
	event.old_path = bytes_of(&set->old_path);
	return send_inode(set, &event, tw_view_inode(set->view, op->ino));
}

struct tw_error *tw_tell_nameop(struct tw_changeset *set, struct tw_nameop *op)
{
	static const enum tw_event_type types[] = {
		[TW_NAMEOP_CREATE] = TW_EVENT_FILE_CREATED,
		[TW_NAMEOP_LINK] = TW_EVENT_FILE_LINKED,
		[TW_NAMEOP_RENAME] = TW_EVENT_FILE_RENAMED,
		[TW_NAMEOP_UNLINK] = TW_EVENT_FILE_UNLINKED,
		[TW_NAMEOP_DELETE] = TW_EVENT_FILE_DELETED,
	};
	struct tw_event event = begin(set, types[op->kind]);
	struct tw_name *name;
	if (!op->to)
		return take_name(set, op, &event);
	if (op->kind == TW_NAMEOP_RENAME)
		return rename_to(set, op, op->to, &name);
	TW_TRY(give_name(set, op->to, &name));
	if (!name_path(set, name, &set->path))
		return NULL;
	event.path = bytes_of(&set->path);
	return send_inode(set, &event, tw_view_inode(set->view, op->ino));
}

struct tw_error *tw_tell_exchange(
	struct tw_changeset *set, struct tw_nameop *a, struct tw_nameop *b)
{
	struct tw_event event = begin(set, TW_EVENT_FILE_RENAMED);
	uint32_t dir = tw_view_name_dir(set->view, a->from);
	uint64_t block = tw_view_name_block(set->view, a->from);
	uint8_t bytes[255], len = a->from->len;
	struct tw_name *name;
	memcpy(bytes, a->from->bytes, len);
	bool known = name_path(set, a->from, &set->old_path) && name_path(set, b->from, &set->path);
	entries_changed(set, dir);
	entries_changed(set, tw_view_name_dir(set->view, b->from));
	tw_view_name_remove(set->view, a->from);
	tw_view_name_remove(set->view, b->from);
	a->from = b->from = NULL;
	TW_TRY(give_name(set, a->to, &name));
	TW_TRY(tw_view_name_add(set->view, dir, block, b->ino, bytes, len, &b->from));
	if (!known)
		return NULL;
	event.exchange = true;
	event.exchanged = b->ino;
	event.path = bytes_of(&set->path);
	event.old_path = bytes_of(&set->old_path);
	return send_inode(set, &event, tw_view_inode(set->view, a->ino));
}

struct tw_error *tw_tell_park(struct tw_changeset *set, struct tw_nameop *op)
{
	char text[64];
	int len = snprintf(text, sizeof(text), ".tapwire-parked-%u-%u-%zu", op->ino,
		set->commit->transaction, (size_t)(op - set->ops));
	struct tw_newname to = {.dir = tw_view_root(set->view),
		.ino = op->ino,
		.bytes = set->text.len,
		.len = (uint8_t)len};
	tw_buf_append(&set->text, text, (size_t)len);
	if (set->text.failed)
		return tw_error_nomem();
	op->parked = true;
	return rename_to(set, op, &to, &op->from);
}

static bool same_time(struct tw_time a, struct tw_time b)
{
	return a.sec == b.sec && a.nsec == b.nsec;
}

static struct tw_error *tell_inode(
	struct tw_changeset *set, struct tw_change *change, const struct tw_inode *inode)
{
	const struct tw_attr attr = tw_view_attr(set->view, inode);
	const struct tw_attr *was = &change->old, *now = &attr;
	bool file = tw_mode_kind(now->mode) == TW_KIND_FILE;
	bool truncated = file && now->size < was->size;
	if (file && now->size > was->size)
		TW_TRY(tw_changeset_range(change, was->size, now->size - was->size));
	tidy_ranges(change, now->size);
	bool modified = file ? change->nranges > 0 : change->entries || now->size != was->size;
	bool attributes = was->mode != now->mode || was->uid != now->uid || was->gid != now->gid ||
			  (was->flags ^ now->flags) & ~TW_FLAG_INLINE || was->xattrs != now->xattrs;
	bool touched = !same_time(was->mtime, now->mtime) || !same_time(was->ctime, now->ctime) ||
		       was->nlink != now->nlink;

	const struct tw_name *name = tw_view_link(set->view, inode, 0);
	tw_buf_reset(&set->path);
	set->opaque = name && name->opaque;
	if (!tw_view_inode_path(set->view, inode, &set->path))
		return NULL;
	struct tw_event event = begin(set, TW_EVENT_FILE_TRUNCATED);
	event.path = bytes_of(&set->path);
	if (truncated)
		TW_TRY(send_inode(set, &event, inode));
	event.type = TW_EVENT_FILE_MODIFIED;
	event.ranges = change->ranges;
	event.nranges = file ? change->nranges : 0;
	if (modified)
		TW_TRY(send_inode(set, &event, inode));
	event.type = TW_EVENT_FILE_ATTRIBUTES;
	event.ranges = NULL;
	event.nranges = 0;
	if (attributes || (touched && !change->told))
		TW_TRY(send_inode(set, &event, inode));
	return NULL;
}

static struct tw_error *tell_change(struct tw_changeset *set, struct tw_change *change)
{
	const struct tw_inode *inode = tw_view_inode(set->view, change->ino);
	bool named = inode && (tw_inode_named(inode) || inode->ino == tw_view_root(set->view));
	return named && !change->created ? tell_inode(set, change, inode) : NULL;
}

static int by_ino(const void *a, const void *b)
{
	const struct tw_change *x = *(struct tw_change *const *)a,
			       *y = *(struct tw_change *const *)b;
	return x->ino < y->ino ? -1 : x->ino > y->ino;
}

/* The changes by inode number; the caller frees. NULL: no memory. */
static struct tw_change **sorted_changes(const struct tw_changeset *set)
{
	struct tw_change **sorted = malloc((set->nchanges + 1) * sizeof(struct tw_change *));
	for (size_t i = 0; sorted && i < set->nchanges; i++)
		sorted[i] = tw_changeset_at(set, i);
	if (sorted)
		qsort(sorted, set->nchanges, sizeof(struct tw_change *), by_ino);
	return sorted;
}

/* Inode tables mostly come in order. */
static bool in_order(const struct tw_changeset *set)
{
	for (size_t i = 1; i < set->nchanges; i++)
		if (tw_changeset_at(set, i)->ino < tw_changeset_at(set, i - 1)->ino)
			return false;
	return true;
}

struct tw_error *tw_tell_inodes(struct tw_changeset *set)
{
	struct tw_error *err = NULL;
	struct tw_change **sorted = NULL;
	if (!in_order(set)) {
		sorted = sorted_changes(set);
		if (!sorted)
			return tw_error_nomem();
	}
	for (size_t i = 0; i < set->nchanges && !err; i++)
		err = tell_change(set, sorted ? sorted[i] : tw_changeset_at(set, i));
	free(sorted);
	return err;
}
