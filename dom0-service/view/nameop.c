/* SPDX-License-Identifier: BSD-3-Clause */
/* From names that went and came to what happened to them. */
#include "view/changeset.h"

#include "base/hash.h"
#include "base/mem.h"

#include <stdlib.h>
#include <string.h>

static uint32_t hash_of(uint32_t dir, const void *bytes, uint8_t len)
{
	return tw_hash_bytes(bytes, len, dir);
}

struct tw_slot *tw_changeset_slot(
	const struct tw_changeset *set, uint32_t dir, const void *bytes, uint8_t len)
{
	if (!set->nslots)
		return NULL;
	uint32_t i = set->places[hash_of(dir, bytes, len) & set->mask];
	for (; i; i = set->slots[i - 1].next) {
		struct tw_slot *slot = &set->slots[i - 1];
		if (slot->name && slot->dir == dir && slot->len == len &&
			!memcmp(set->text.data + slot->bytes, bytes, len))
			return slot;
	}
	return NULL;
}

/* A slot keeps its bytes: it outlives its name. */
static struct tw_error *enter_slot(struct tw_changeset *set, struct tw_oldname *old)
{
	const struct tw_name *name = old->name;
	struct tw_slot *slot = &set->slots[set->nslots++];
	*slot = (struct tw_slot){.name = old->name,
		.bytes = set->text.len,
		.dir = tw_view_name_dir(set->view, name),
		.len = name->len};
	uint32_t *place = &set->places[hash_of(slot->dir, name->bytes, name->len) & set->mask];
	slot->next = *place;
	*place = (uint32_t)set->nslots;
	old->slot = slot;
	tw_buf_append(&set->text, name->bytes, name->len);
	return set->text.failed ? tw_error_nomem() : NULL;
}

static struct tw_error *index_removed(struct tw_changeset *set)
{
	size_t places = 8;
	if (!set->nremoved)
		return NULL;
	while (places < set->nremoved)
		places *= 2;
	set->slots = malloc(set->nremoved * sizeof(*set->slots));
	set->places = calloc(places, sizeof(*set->places));
	if (!set->slots || !set->places)
		return tw_error_nomem();
	set->mask = (uint32_t)(places - 1);
	for (size_t i = 0; i < set->nremoved; i++)
		TW_TRY(enter_slot(set, &set->removed[i]));
	return NULL;
}

static bool identity_changed(struct tw_changeset *set, uint32_t ino)
{
	const struct tw_change *change = tw_changeset_find(set, ino);
	const struct tw_inode *inode = tw_view_inode(set->view, ino);
	return change && inode && tw_changeset_replaced(set, change, inode);
}

/* An entry that only moved between blocks of its directory (htree splits do that) is no change. */
static struct tw_error *cancel_moves(struct tw_changeset *set)
{
	for (size_t i = 0; i < set->nadded; i++) {
		struct tw_newname *to = &set->added[i];
		struct tw_slot *slot =
			tw_changeset_slot(set, to->dir, tw_newname_bytes(set, to), to->len);
		if (!slot || slot->name->ino != to->ino || identity_changed(set, to->ino) ||
			identity_changed(set, to->dir))
			continue;
		TW_TRY(tw_view_name_rehome(set->view, slot->name, to->block));
		slot->name->removed = false;
		slot->name = NULL;
		to->moved = true;
	}
	size_t n = 0;
	for (size_t i = 0; i < set->nremoved; i++)
		if (set->removed[i].slot->name)
			set->removed[n++] = set->removed[i];
	set->nremoved = n;
	n = 0;
	for (size_t i = 0; i < set->nadded; i++)
		if (!set->added[i].moved)
			set->added[n++] = set->added[i];
	set->nadded = n;
	return NULL;
}

static int by_ino_removed(const void *a, const void *b, void *view)
{
	const struct tw_name *x = ((const struct tw_oldname *)a)->name;
	const struct tw_name *y = ((const struct tw_oldname *)b)->name;
	if (x->ino != y->ino)
		return x->ino < y->ino ? -1 : 1;
	uint32_t dir = tw_view_name_dir(view, x), other = tw_view_name_dir(view, y);
	if (dir != other)
		return dir < other ? -1 : 1;
	int ret = memcmp(x->bytes, y->bytes, x->len < y->len ? x->len : y->len);
	return ret ? ret : (int)x->len - (int)y->len;
}

static int by_ino_added(const void *a, const void *b)
{
	const struct tw_newname *x = a, *y = b;
	if (x->ino != y->ino)
		return x->ino < y->ino ? -1 : 1;
	return x->bytes < y->bytes ? -1 : x->bytes > y->bytes;
}

static bool keeps_a_name(const struct tw_changeset *set, const struct tw_inode *inode)
{
	const struct tw_name *name;
	for (uint32_t i = 0; inode && (name = tw_view_link(set->view, inode, i)); i++)
		if (!name->removed)
			return true;
	return false;
}

static struct tw_error *dirops_get(struct tw_changeset *set, uint32_t dir, struct tw_dirops **out)
{
	/* Names of a directory mostly come together. */
	struct tw_dirops *last = set->ndirops ? &set->dirops[set->ndirops - 1] : NULL;
	*out = last && last->dir == dir ? last : tw_changeset_dirops(set, dir);
	if (*out)
		return NULL;
	if (!TW_GROW(set->dirops, set->ndirops, set->capdirops))
		return tw_error_nomem();
	TW_TRY(tw_numtab_set(&set->dirs, dir, set->ndirops));
	*out = &set->dirops[set->ndirops++];
	**out = (struct tw_dirops){.dir = dir};
	return NULL;
}

static struct tw_error *add_op(struct tw_changeset *set, enum tw_nameop_kind kind, uint32_t ino,
	const struct tw_oldname *from, const struct tw_newname *to)
{
	struct tw_nameop *op = &set->ops[set->nops++];
	struct tw_dirops *dirops;
	*op = (struct tw_nameop){
		.kind = kind, .ino = ino, .from = from ? from->name : NULL, .to = to};
	if (from) {
		from->slot->op = op;
		TW_TRY(dirops_get(set, from->slot->dir, &dirops));
		op->next_in_dir = dirops->leaving;
		dirops->leaving = op;
	}
	if (kind == TW_NAMEOP_CREATE && tw_changeset_is_dir(set, ino)) {
		TW_TRY(dirops_get(set, ino, &dirops));
		dirops->making = op;
	}
	return NULL;
}

/* Makes the op that was added last wait for another one. */
static struct tw_nameop *chain(struct tw_changeset *set, struct tw_nameop *before)
{
	struct tw_nameop *last = &set->ops[set->nops - 1];
	last->after = before;
	return last;
}

/* The ops of one inode: n names went, m came. */
static struct tw_error *derive_inode(struct tw_changeset *set, uint32_t ino,
	const struct tw_oldname *removed, size_t n, const struct tw_newname *added, size_t m)
{
	const struct tw_inode *inode = tw_view_inode(set->view, ino);
	bool replaced = identity_changed(set, ino);
	bool was_named = inode && tw_inode_named(inode) && !replaced;
	bool stays = !replaced && (m || keeps_a_name(set, inode));
	size_t pairs = replaced ? 0 : n < m ? n : m;
	struct tw_nameop *before = NULL;

	for (size_t i = 0; i < pairs; i++)
		TW_TRY(add_op(set, TW_NAMEOP_RENAME, ino, &removed[i], &added[i]));
	for (size_t i = pairs; i < n; i++) {
		bool last = !stays && i == n - 1;
		TW_TRY(add_op(
			set, last ? TW_NAMEOP_DELETE : TW_NAMEOP_UNLINK, ino, &removed[i], NULL));
		before = chain(set, before);
	}
	for (size_t i = pairs; i < m; i++) {
		bool first = !was_named && i == 0;
		TW_TRY(add_op(
			set, first ? TW_NAMEOP_CREATE : TW_NAMEOP_LINK, ino, NULL, &added[i]));
		if (replaced)
			before = chain(set, before);
	}
	return NULL;
}

struct tw_error *tw_nameops_derive(struct tw_changeset *set)
{
	TW_TRY(index_removed(set));
	TW_TRY(cancel_moves(set));
	set->ops = calloc(set->nremoved + set->nadded + 1, sizeof(*set->ops));
	if (!set->ops)
		return tw_error_nomem();
	if (set->nremoved)
		qsort_r(set->removed, set->nremoved, sizeof(*set->removed), by_ino_removed,
			set->view);
	if (set->nadded)
		qsort(set->added, set->nadded, sizeof(*set->added), by_ino_added);
	size_t r = 0, a = 0;
	while (r < set->nremoved || a < set->nadded) {
		uint32_t ino = r < set->nremoved ? set->removed[r].name->ino : UINT32_MAX;
		if (a < set->nadded && set->added[a].ino < ino)
			ino = set->added[a].ino;
		size_t n = 0, m = 0;
		while (r + n < set->nremoved && set->removed[r + n].name->ino == ino)
			n++;
		while (a + m < set->nadded && set->added[a + m].ino == ino)
			m++;
		TW_TRY(derive_inode(set, ino, set->removed + r, n, set->added + a, m));
		r += n;
		a += m;
	}
	return NULL;
}

void tw_nameops_release(struct tw_changeset *set)
{
	free(set->slots);
	free(set->places);
	free(set->ops);
	set->slots = NULL;
	set->places = NULL;
	set->ops = NULL;
	set->nslots = set->nops = set->ndirops = 0;
	tw_numtab_empty(&set->dirs);
}
