/* SPDX-License-Identifier: BSD-3-Clause */
/* From names that went and came to what happened to them. */
#include "view/changeset.h"

#include <stdlib.h>
#include <string.h>

static unsigned slot_key(uint8_t key[4 + 255], uint32_t dir, const void *bytes, uint8_t len)
{
	memcpy(key, &dir, sizeof(dir));
	memcpy(key + sizeof(dir), bytes, len);
	return (unsigned)sizeof(dir) + len;
}

struct tw_slot *tw_changeset_slot(
	struct tw_changeset *set, uint32_t dir, const void *bytes, uint8_t len)
{
	uint8_t key[4 + 255];
	unsigned keylen = slot_key(key, dir, bytes, len);
	struct tw_slot *slot;
	HASH_FIND(hh, set->slots, key, keylen, slot);
	return slot;
}

static struct tw_error *index_removed(struct tw_changeset *set)
{
	for (size_t i = 0; i < set->nremoved; i++) {
		struct tw_name *name = set->removed[i];
		struct tw_slot *slot = malloc(sizeof(*slot));
		if (!slot)
			return tw_error_nomem();
		slot->name = name;
		slot->op = NULL;
		unsigned keylen = slot_key(
			slot->key, tw_view_name_dir(set->view, name), name->bytes, name->len);
		HASH_ADD_KEYPTR(hh, set->slots, slot->key, keylen, slot);
	}
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
		if (!slot || !slot->name->removed || slot->name->ino != to->ino ||
			identity_changed(set, to->ino) || identity_changed(set, to->dir))
			continue;
		TW_TRY(tw_view_name_rehome(set->view, slot->name, to->block));
		slot->name->removed = false;
		to->moved = true;
		HASH_DEL(set->slots, slot);
		free(slot);
	}
	size_t n = 0;
	for (size_t i = 0; i < set->nremoved; i++)
		if (set->removed[i]->removed)
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
	const struct tw_name *x = *(struct tw_name *const *)a, *y = *(struct tw_name *const *)b;
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

static struct tw_dirops *dirops_get(struct tw_changeset *set, uint32_t dir)
{
	struct tw_dirops *ops;
	HASH_FIND(hh, set->dirops, &dir, sizeof(dir), ops);
	if (ops)
		return ops;
	ops = calloc(1, sizeof(*ops));
	if (!ops)
		return NULL;
	ops->dir = dir;
	HASH_ADD(hh, set->dirops, dir, sizeof(ops->dir), ops);
	return ops;
}

static struct tw_error *add_op(struct tw_changeset *set, enum tw_nameop_kind kind, uint32_t ino,
	struct tw_name *from, const struct tw_newname *to)
{
	struct tw_nameop *op = &set->ops[set->nops++];
	*op = (struct tw_nameop){.kind = kind, .ino = ino, .from = from, .to = to};
	if (from) {
		uint32_t dir = tw_view_name_dir(set->view, from);
		tw_changeset_slot(set, dir, from->bytes, from->len)->op = op;
		struct tw_dirops *leaving = dirops_get(set, dir);
		if (!leaving)
			return tw_error_nomem();
		op->next_in_dir = leaving->leaving;
		leaving->leaving = op;
	}
	if (kind == TW_NAMEOP_CREATE) {
		struct tw_dirops *making = dirops_get(set, ino);
		if (!making)
			return tw_error_nomem();
		making->making = op;
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
	struct tw_name **removed, size_t n, const struct tw_newname *added, size_t m)
{
	const struct tw_inode *inode = tw_view_inode(set->view, ino);
	bool replaced = identity_changed(set, ino);
	bool was_named = inode && tw_inode_named(inode) && !replaced;
	bool stays = !replaced && (m || keeps_a_name(set, inode));
	size_t pairs = replaced ? 0 : n < m ? n : m;
	struct tw_nameop *before = NULL;

	for (size_t i = 0; i < pairs; i++)
		TW_TRY(add_op(set, TW_NAMEOP_RENAME, ino, removed[i], &added[i]));
	for (size_t i = pairs; i < n; i++) {
		bool last = !stays && i == n - 1;
		TW_TRY(add_op(
			set, last ? TW_NAMEOP_DELETE : TW_NAMEOP_UNLINK, ino, removed[i], NULL));
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
		qsort_r(set->removed, set->nremoved, sizeof(struct tw_name *), by_ino_removed,
			set->view);
	if (set->nadded)
		qsort(set->added, set->nadded, sizeof(*set->added), by_ino_added);
	size_t r = 0, a = 0;
	while (r < set->nremoved || a < set->nadded) {
		uint32_t ino = r < set->nremoved ? set->removed[r]->ino : UINT32_MAX;
		if (a < set->nadded && set->added[a].ino < ino)
			ino = set->added[a].ino;
		size_t n = 0, m = 0;
		while (r + n < set->nremoved && set->removed[r + n]->ino == ino)
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
	struct tw_slot *slot, *next_slot;
	HASH_ITER (hh, set->slots, slot, next_slot) {
		HASH_DEL(set->slots, slot);
		free(slot);
	}
	struct tw_dirops *ops, *next_ops;
	HASH_ITER (hh, set->dirops, ops, next_ops) {
		HASH_DEL(set->dirops, ops);
		free(ops);
	}
	free(set->ops);
	set->ops = NULL;
	set->nops = 0;
}
