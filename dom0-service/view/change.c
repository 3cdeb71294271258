/* SPDX-License-Identifier: BSD-3-Clause */
#include "base/mem.h"
#include "view/changeset.h"
#include "view/ranges.h"

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

void tw_changeset_set_xattrs(struct tw_changeset *set, tw_xattrs_fn xattrs, void *arg)
{
	set->xattrs = xattrs;
	set->xattrs_arg = arg;
}

/* What a change holds besides its place. */
static void release_change(struct tw_change *change)
{
	free(change->old_target);
	if (change->capranges)
		free(change->ranges);
}

/* Memory that one transaction needed is kept for the next one, up to so much. */
#define KEPT_CHUNKS 64u
#define KEPT_NAMES 65536u
#define KEPT_TEXT (1u << 20)

static void forget_names(struct tw_changeset *set)
{
	if (set->capremoved > KEPT_NAMES || set->capadded > KEPT_NAMES ||
		set->text.cap > KEPT_TEXT) {
		free(set->removed);
		free(set->added);
		tw_buf_deinit(&set->text);
		set->removed = NULL;
		set->added = NULL;
		set->capremoved = set->capadded = 0;
	}
	set->nremoved = 0;
	set->nadded = 0;
	tw_buf_reset(&set->text);
}

static void reset(struct tw_changeset *set)
{
	for (size_t i = 0; i < set->nchanges; i++)
		release_change(tw_changeset_at(set, i));
	set->nchanges = 0;
	set->nranges = 0;
	while (set->nchunks > KEPT_CHUNKS)
		free(set->chunks[--set->nchunks]);
	tw_numtab_empty(&set->numbers);
	forget_names(set);
}

void tw_changeset_destroy(struct tw_changeset *set)
{
	if (!set)
		return;
	tw_nameops_release(set);
	reset(set);
	while (set->nchunks)
		free(set->chunks[--set->nchunks]);
	free(set->chunks);
	free(set->removed);
	free(set->added);
	free(set->dirops);
	tw_numtab_clear(&set->numbers);
	tw_numtab_clear(&set->dirs);
	tw_buf_deinit(&set->text);
	tw_buf_deinit(&set->path);
	tw_buf_deinit(&set->old_path);
	free(set);
}

struct tw_change *tw_changeset_find(struct tw_changeset *set, uint32_t ino)
{
	uint64_t i;
	return tw_numtab_get(&set->numbers, ino, &i) ? tw_changeset_at(set, i) : NULL;
}

/* What the inode is now is what it was before the change. */
static void begin_change(const struct tw_changeset *set, struct tw_change *change)
{
	const struct tw_inode *inode = tw_view_inode(set->view, change->ino);
	uint32_t len = 0;
	const char *target = inode ? tw_inode_target(inode, &len) : NULL;
	change->old = inode ? tw_view_attr(set->view, inode) : (struct tw_attr){0};
	free(change->old_target);
	change->old_target = target ? tw_memdup(target, len) : NULL;
	change->old_target_len = change->old_target ? len : 0;
}

static struct tw_error *add_change(struct tw_changeset *set, uint32_t ino, struct tw_change **out)
{
	if (set->nchanges >> TW_CHANGE_SHIFT == set->nchunks) {
		if (!TW_GROW(set->chunks, set->nchunks, set->capchunks))
			return tw_error_nomem();
		struct tw_change *chunk = malloc(sizeof(*chunk) << TW_CHANGE_SHIFT);
		if (!chunk)
			return tw_error_nomem();
		set->chunks[set->nchunks++] = chunk;
	}
	TW_TRY(tw_numtab_set(&set->numbers, ino, set->nchanges));
	*out = tw_changeset_at(set, set->nchanges++);
	**out = (struct tw_change){.set = set, .ino = ino};
	begin_change(set, *out);
	return NULL;
}

struct tw_error *tw_changeset_inode(struct tw_changeset *set, uint32_t ino, struct tw_change **out)
{
	*out = tw_changeset_find(set, ino);
	return *out ? NULL : add_change(set, ino, out);
}

/* Data may be written for long before a transaction tells of it, all over a file, and in many
 * files. */
#define MAX_WAITING_RANGES 65536u
#define MAX_ALL_RANGES (1u << 20)
/* When they are too many, each file keeps as many as an event carries; when that is too many still,
 * fewer. */
#define KEPT_RANGES 1024u

static struct tw_error *more_ranges(struct tw_change *change)
{
	size_t cap = change->capranges ? change->capranges * 2 : 4;
	struct tw_range *ranges =
		reallocarray(change->capranges ? change->ranges : NULL, cap, sizeof(*ranges));
	if (!ranges)
		return tw_error_nomem();
	if (!change->capranges)
		ranges[0] = change->one;
	change->ranges = ranges;
	change->capranges = cap;
	return NULL;
}

static void limit_ranges(struct tw_change *change, size_t max)
{
	size_t had = change->nranges;
	size_t n = tw_ranges_tidy(change->ranges, had, UINT64_MAX);
	change->nranges = tw_ranges_limit(change->ranges, n, max);
	change->set->nranges -= had - change->nranges;
	if (change->capranges <= 4 * change->nranges || change->capranges <= 8)
		return;
	size_t cap = change->nranges > 4 ? change->nranges : 4;
	struct tw_range *fewer = realloc(change->ranges, cap * sizeof(*fewer));
	if (!fewer)
		return;
	change->ranges = fewer;
	change->capranges = cap;
}

static void count_ranges(struct tw_changeset *set)
{
	set->nranges = 0;
	for (size_t i = 0; i < set->nchanges; i++)
		set->nranges += tw_changeset_at(set, i)->nranges;
}

static void limit_all_ranges(struct tw_changeset *set)
{
	for (size_t max = KEPT_RANGES; max && set->nranges > MAX_ALL_RANGES / 2; max /= 4)
		for (size_t i = 0; i < set->nchanges; i++)
			limit_ranges(tw_changeset_at(set, i), max);
}

struct tw_error *tw_changeset_range(struct tw_change *change, uint64_t offset, uint64_t length)
{
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
	if (change->nranges == MAX_WAITING_RANGES)
		limit_ranges(change, MAX_WAITING_RANGES / 2);
	/* Between transactions; what one brings itself is bounded by its extents. */
	if (!change->set->commit && change->set->nranges >= MAX_ALL_RANGES)
		limit_all_ranges(change->set);
	if (!change->capranges && !change->nranges)
		change->ranges = &change->one;
	else if (change->nranges == (change->capranges ? change->capranges : 1))
		TW_TRY(more_ranges(change));
	change->ranges[change->nranges++] = (struct tw_range){offset, length};
	change->set->nranges++;
	return NULL;
}

struct tw_error *tw_changeset_remove_name(struct tw_changeset *set, struct tw_name *name)
{
	if (name->removed)
		return NULL;
	if (!TW_GROW(set->removed, set->nremoved, set->capremoved))
		return tw_error_nomem();
	name->removed = true;
	set->removed[set->nremoved++] = (struct tw_oldname){name, NULL};
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
	for (size_t i = 0; i < set->nchanges; i++) {
		const struct tw_change *change = tw_changeset_at(set, i);
		const struct tw_inode *inode = tw_view_inode(set->view, change->ino);
		if (inode && change->old.mode && tw_changeset_replaced(set, change, inode))
			TW_TRY(replace_names(set, inode));
	}
	return NULL;
}

void tw_changeset_save_ranges(const struct tw_changeset *set, struct tw_buf *out)
{
	for (size_t i = 0; i < set->nchanges; i++) {
		const struct tw_change *change = tw_changeset_at(set, i);
		tw_pack32(out, change->ino);
		tw_pack64(out, change->nranges);
		for (size_t k = 0; k < change->nranges; k++) {
			tw_pack64(out, change->ranges[k].offset);
			tw_pack64(out, change->ranges[k].length);
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

/* The inode of the view is what was told of it, or else what it was. */
static void abandon_change(struct tw_changeset *set, struct tw_change *change)
{
	struct tw_inode *inode = tw_view_inode(set->view, change->ino);
	/* What inodes share was there before, so this needs no memory. */
	if (inode && !change->told)
		tw_error_destroy(tw_view_set_attr(set->view, inode, &change->old));
	else if (inode)
		begin_change(set, change);
	change->told = change->created = change->entries = false;
}

void tw_changeset_abandon(struct tw_changeset *set)
{
	/* The ops say which of the names are left; before they are derived, all are. */
	for (size_t i = 0; !set->ops && i < set->nremoved; i++)
		set->removed[i].name->removed = false;
	for (size_t i = 0; i < set->nops; i++)
		if (set->ops[i].from)
			set->ops[i].from->removed = false;
	tw_nameops_release(set);
	/* Those without ranges stay as changes of nothing. */
	for (size_t i = 0; i < set->nchanges; i++)
		abandon_change(set, tw_changeset_at(set, i));
	count_ranges(set);
	set->commit = NULL;
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
