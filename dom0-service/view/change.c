/* SPDX-License-Identifier: BSD-3-Clause */
#include "base/mem.h"
#include "view/changeset.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

struct tw_error *tw_changeset_create(
	struct tw_view *view, tw_emit_fn emit, void *arg, struct tw_changeset **out)
{
	struct tw_changeset *set = calloc(1, sizeof(*set));
	if (!set)
		return tw_error_nomem();
	set->view = view;
	set->emit = emit;
	set->arg = arg;
	*out = set;
	return NULL;
}

static void drop_change(struct tw_changeset *set, struct tw_change *change)
{
	HASH_DEL(set->changes, change);
	free(change->old_target);
	free(change->ranges);
	free(change);
}

static void forget_names(struct tw_changeset *set)
{
	set->nremoved = 0;
	set->nadded = 0;
	tw_buf_reset(&set->text);
}

static void reset(struct tw_changeset *set)
{
	struct tw_change *change, *next;
	HASH_ITER (hh, set->changes, change, next)
		drop_change(set, change);
	forget_names(set);
}

void tw_changeset_destroy(struct tw_changeset *set)
{
	if (!set)
		return;
	tw_nameops_release(set);
	reset(set);
	free(set->removed);
	free(set->added);
	tw_buf_deinit(&set->text);
	tw_buf_deinit(&set->path);
	tw_buf_deinit(&set->old_path);
	free(set);
}

struct tw_change *tw_changeset_find(struct tw_changeset *set, uint32_t ino)
{
	struct tw_change *change;
	HASH_FIND(hh, set->changes, &ino, sizeof(ino), change);
	return change;
}

struct tw_error *tw_changeset_inode(struct tw_changeset *set, uint32_t ino, struct tw_change **out)
{
	struct tw_change *change = tw_changeset_find(set, ino);
	if (!change) {
		change = calloc(1, sizeof(*change));
		if (!change)
			return tw_error_nomem();
		change->ino = ino;
		const struct tw_inode *inode = tw_view_inode(set->view, ino);
		if (inode) {
			uint32_t len;
			const char *target = tw_inode_target(inode, &len);
			change->old = tw_view_attr(set->view, inode);
			if (target) {
				change->old_target = tw_memdup(target, len);
				change->old_target_len = change->old_target ? len : 0;
			}
		}
		HASH_ADD(hh, set->changes, ino, sizeof(change->ino), change);
	}
	*out = change;
	return NULL;
}

struct tw_error *tw_changeset_range(struct tw_change *change, uint64_t offset, uint64_t length)
{
	change->content = true;
	if (!length)
		return NULL;
	/* Writes mostly come in order: join with the last one where that is enough. */
	if (change->nranges) {
		struct tw_range *last = &change->ranges[change->nranges - 1];
		if (offset >= last->offset && offset <= last->offset + last->length) {
			uint64_t end = offset + length;
			if (end > last->offset + last->length)
				last->length = end - last->offset;
			return NULL;
		}
	}
	if (!(change->nranges & (change->nranges - 1))) {
		size_t cap = change->nranges ? change->nranges * 2 : 1;
		struct tw_range *ranges = realloc(change->ranges, cap * sizeof(*ranges));
		if (!ranges)
			return tw_error_nomem();
		change->ranges = ranges;
	}
	change->ranges[change->nranges++] = (struct tw_range){offset, length};
	return NULL;
}

struct tw_error *tw_changeset_remove_name(struct tw_changeset *set, struct tw_name *name)
{
	if (name->removed)
		return NULL;
	if (!TW_GROW(set->removed, set->nremoved, set->capremoved))
		return tw_error_nomem();
	name->removed = true;
	set->removed[set->nremoved++] = name;
	return NULL;
}

struct tw_error *tw_changeset_add_name(struct tw_changeset *set, uint32_t dir, uint64_t block,
	uint32_t ino, const void *bytes, uint8_t len)
{
	if (!TW_GROW(set->added, set->nadded, set->capadded))
		return tw_error_nomem();
	size_t at = set->text.len;
	tw_buf_append(&set->text, bytes, len);
	if (set->text.failed)
		return tw_error_nomem();
	set->added[set->nadded++] = (struct tw_newname){
		.block = block, .dir = dir, .ino = ino, .bytes = at, .len = len};
	return NULL;
}

bool tw_change_identity(const struct tw_change *change, const struct tw_attr *now)
{
	if (!change->old.mode || !now->mode)
		return change->old.mode != now->mode;
	return change->old.generation != now->generation ||
	       (change->old.mode & S_IFMT) != (now->mode & S_IFMT);
}

bool tw_changeset_replaced(const struct tw_changeset *set, const struct tw_change *change,
	const struct tw_inode *inode)
{
	struct tw_attr now = tw_view_attr(set->view, inode);
	return tw_change_identity(change, &now);
}

static struct tw_error *replace_name(struct tw_changeset *set, struct tw_name *name)
{
	if (name->removed)
		return NULL;
	TW_TRY(tw_changeset_remove_name(set, name));
	return tw_changeset_add_name(set, tw_view_name_dir(set->view, name),
		tw_view_name_block(set->view, name), name->ino, name->bytes, name->len);
}

static struct tw_error *replace_names(struct tw_changeset *set, const struct tw_inode *inode)
{
	struct tw_name *name;
	for (uint32_t i = 0; (name = tw_view_link(set->view, inode, i)); i++)
		TW_TRY(replace_name(set, name));
	for (uint32_t i = 0; i < tw_inode_nblocks(inode); i++) {
		name = tw_view_block_names(set->view, tw_view_dirblock_at(set->view, inode, i));
		for (; name; name = tw_view_block_next(set->view, name))
			TW_TRY(replace_name(set, name));
	}
	return NULL;
}

/* A name that stayed while its inode, or the directory around it, became another one went and came.
 */
static struct tw_error *replace_identities(struct tw_changeset *set)
{
	struct tw_change *change, *tmp;
	HASH_ITER (hh, set->changes, change, tmp) {
		const struct tw_inode *inode = tw_view_inode(set->view, change->ino);
		if (inode && change->old.mode && tw_changeset_replaced(set, change, inode))
			TW_TRY(replace_names(set, inode));
	}
	return NULL;
}

void tw_changeset_save_ranges(const struct tw_changeset *set, struct tw_buf *out)
{
	for (const struct tw_change *change = set->changes; change; change = change->hh.next) {
		tw_pack32(out, change->ino);
		tw_pack64(out, change->nranges);
		for (size_t i = 0; i < change->nranges; i++) {
			tw_pack64(out, change->ranges[i].offset);
			tw_pack64(out, change->ranges[i].length);
		}
	}
	tw_pack32(out, 0);
}

struct tw_error *tw_changeset_load_ranges(struct tw_changeset *set, struct tw_unpack *in)
{
	uint32_t ino;
	while ((ino = tw_unpack32(in)) && !in->failed) {
		struct tw_change *change;
		TW_TRY(tw_changeset_inode(set, ino, &change));
		uint64_t n = tw_unpack64(in);
		for (uint64_t i = 0; i < n && !in->failed; i++) {
			uint64_t offset = tw_unpack64(in);
			TW_TRY(tw_changeset_range(change, offset, tw_unpack64(in)));
		}
	}
	return NULL;
}

void tw_changeset_abandon(struct tw_changeset *set)
{
	/* The ops say which of the names are left; before they are derived, all are. */
	for (size_t i = 0; !set->ops && i < set->nremoved; i++)
		set->removed[i]->removed = false;
	for (size_t i = 0; i < set->nops; i++)
		if (set->ops[i].from)
			set->ops[i].from->removed = false;
	tw_nameops_release(set);
	struct tw_change *change, *next;
	HASH_ITER (hh, set->changes, change, next) {
		struct tw_inode *inode = tw_view_inode(set->view, change->ino);
		/* What inodes share was there before, so this needs no memory. */
		if (inode && !change->told)
			tw_error_destroy(tw_view_set_attr(set->view, inode, &change->old));
		else if (inode)
			change->old = tw_view_attr(set->view, inode);
		change->told = change->created = change->entries = false;
		if (!change->nranges)
			drop_change(set, change);
	}
	forget_names(set);
}

struct tw_error *tw_changeset_emit(struct tw_changeset *set, const struct tw_commit *commit)
{
	set->commit = commit;
	struct tw_error *err = replace_identities(set);
	if (!err)
		err = tw_nameops_derive(set);
	if (!err)
		err = tw_nameops_perform(set);
	if (!err)
		err = tw_tell_inodes(set);
	if (err)
		return err;
	tw_nameops_release(set);
	reset(set);
	set->commit = NULL;
	return NULL;
}
