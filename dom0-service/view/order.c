/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * In which order name ops can be carried out: a slot must be free, a parent must exist, a directory
 * must be empty before it goes and must not be moved into itself. Dependencies are followed depth
 * first with a stack of our own (their length is the guest's choice); a cycle of renames is broken
 * by exchanges, any other cycle by parking one of its renames.
 */
#include "view/changeset.h"

#include <stdlib.h>

/* The op that must make the parent first, or NULL. */
static struct tw_nameop *waits_for_parent(
	const struct tw_changeset *set, const struct tw_nameop *op)
{
	const struct tw_dirops *ops = tw_changeset_dirops(set, op->to->dir);
	if (!ops || !ops->making || ops->making == op || ops->making->state == TW_NAMEOP_DONE)
		return NULL;
	return ops->making;
}

static struct tw_nameop *waits_for_slot(struct tw_changeset *set, const struct tw_nameop *op)
{
	const struct tw_slot *slot =
		tw_changeset_slot(set, op->to->dir, tw_newname_bytes(set, op->to), op->to->len);
	if (!slot || slot->op == op || !slot->op || slot->op->state == TW_NAMEOP_DONE)
		return NULL;
	return slot->op;
}

/* The op that takes a directory's name off the path from which op hangs, when op would move a
 * directory into itself. */
static struct tw_nameop *waits_for_ancestor(struct tw_changeset *set, const struct tw_nameop *op)
{
	struct tw_nameop *found = NULL;
	uint32_t ino = op->to->dir, root = tw_view_root(set->view);
	for (int depth = 0; ino != root && depth < 4096; depth++) {
		if (ino == op->ino)
			return found;
		const struct tw_inode *dir = tw_view_inode(set->view, ino);
		const struct tw_name *name = dir ? tw_view_link(set->view, dir, 0) : NULL;
		if (!name)
			return NULL;
		ino = tw_view_name_dir(set->view, name);
		const struct tw_slot *slot = tw_changeset_slot(set, ino, name->bytes, name->len);
		if (!found && slot && slot->name == name && slot->op && slot->op != op &&
			slot->op->state != TW_NAMEOP_DONE)
			found = slot->op;
	}
	return NULL;
}

static struct tw_nameop *waits_for_children(
	const struct tw_changeset *set, const struct tw_nameop *op)
{
	const struct tw_inode *inode = tw_view_inode(set->view, op->ino);
	if (!inode || !tw_inode_nentries(inode))
		return NULL;
	struct tw_dirops *ops = tw_changeset_dirops(set, op->ino);
	/* Done ones are passed over for good, so that a big directory is walked once. */
	while (ops && ops->leaving && ops->leaving->state == TW_NAMEOP_DONE)
		ops->leaving = ops->leaving->next_in_dir;
	return ops ? ops->leaving : NULL;
}

bool tw_changeset_is_dir(const struct tw_changeset *set, uint32_t ino)
{
	const struct tw_inode *inode = tw_view_inode(set->view, ino);
	return inode && (tw_inode_nblocks(inode) ||
				tw_mode_kind(tw_view_mode(set->view, inode)) == TW_KIND_DIR);
}

static struct tw_nameop *dependency(struct tw_changeset *set, const struct tw_nameop *op)
{
	struct tw_nameop *on = NULL;
	if (op->after && op->after->state != TW_NAMEOP_DONE)
		return op->after;
	if (op->to) {
		on = waits_for_parent(set, op);
		if (!on)
			on = waits_for_slot(set, op);
		if (!on && op->kind == TW_NAMEOP_RENAME && tw_changeset_is_dir(set, op->ino))
			on = waits_for_ancestor(set, op);
	} else if (op->kind == TW_NAMEOP_DELETE) {
		on = waits_for_children(set, op);
	}
	return on;
}

/* True when ino is dir or above it. */
static bool holds(const struct tw_changeset *set, uint32_t ino, uint32_t dir)
{
	uint32_t root = tw_view_root(set->view);
	for (int depth = 0; depth < 4096; depth++) {
		if (dir == ino)
			return true;
		const struct tw_inode *inode = tw_view_inode(set->view, dir);
		if (dir == root || !inode || !tw_inode_named(inode))
			return false;
		dir = tw_view_name_dir(set->view, tw_view_link(set->view, inode, 0));
	}
	return true;
}

/* op has left its slot for another one before its time: keep slots and directories in step. */
static void relocated(
	struct tw_changeset *set, struct tw_nameop *op, uint32_t old_dir, struct tw_slot *slot)
{
	struct tw_dirops *from = tw_changeset_dirops(set, old_dir);
	struct tw_dirops *to = tw_changeset_dirops(set, tw_view_name_dir(set->view, op->from));
	for (struct tw_nameop **at = from ? &from->leaving : NULL; at && *at;
		at = &(*at)->next_in_dir) {
		if (*at == op) {
			*at = op->next_in_dir;
			break;
		}
	}
	op->next_in_dir = NULL;
	if (to) {
		op->next_in_dir = to->leaving;
		to->leaving = op;
	}
	if (slot) {
		slot->op = op;
		slot->name = op->from;
	}
}

static struct tw_slot *slot_of(struct tw_changeset *set, const struct tw_name *name)
{
	return tw_changeset_slot(set, tw_view_name_dir(set->view, name), name->bytes, name->len);
}

static struct tw_error *exchange(struct tw_changeset *set, struct tw_nameop *a, struct tw_nameop *b)
{
	struct tw_slot *of_a = slot_of(set, a->from), *of_b = slot_of(set, b->from);
	uint32_t old_dir = tw_view_name_dir(set->view, b->from);
	TW_TRY(tw_tell_exchange(set, a, b));
	of_b->op = NULL;
	relocated(set, b, old_dir, of_a);
	return NULL;
}

static struct tw_error *park(struct tw_changeset *set, struct tw_nameop *op)
{
	struct tw_slot *slot = slot_of(set, op->from);
	uint32_t old_dir = tw_view_name_dir(set->view, op->from);
	TW_TRY(tw_tell_park(set, op));
	if (slot)
		slot->op = NULL;
	relocated(set, op, old_dir, NULL);
	return NULL;
}

/* stack[0 .. n - 1] waits in a circle on itself: op is on top and waits for on, which is below. */
static struct tw_error *break_cycle(struct tw_changeset *set, struct tw_nameop **stack, size_t *n,
	struct tw_nameop *op, struct tw_nameop *on)
{
	if (op->kind == TW_NAMEOP_RENAME && on->kind == TW_NAMEOP_RENAME &&
		waits_for_slot(set, op) == on &&
		!holds(set, op->ino, tw_view_name_dir(set->view, on->from)) &&
		!holds(set, on->ino, tw_view_name_dir(set->view, op->from))) {
		op->state = TW_NAMEOP_DONE;
		(*n)--;
		return exchange(set, op, on);
	}
	for (size_t i = *n; i-- > 0;) {
		if (stack[i]->kind != TW_NAMEOP_RENAME || stack[i]->parked)
			continue;
		TW_TRY(park(set, stack[i]));
		/* Whoever waited may go now: begin again. Each op is parked once at most. */
		for (; *n > 1; --*n)
			stack[*n - 1]->state = TW_NAMEOP_PENDING;
		return NULL;
	}
	/* Directories that hold each other: a guest's nonsense, which has no order, and no path to
	 * tell of. */
	op->state = TW_NAMEOP_DONE;
	(*n)--;
	return tw_tell_nameop(set, op);
}

static struct tw_error *perform(
	struct tw_changeset *set, struct tw_nameop **stack, struct tw_nameop *op)
{
	size_t n = 0;
	if (op->state != TW_NAMEOP_PENDING)
		return NULL;
	op->state = TW_NAMEOP_UNDERWAY;
	stack[n++] = op;
	while (n) {
		op = stack[n - 1];
		struct tw_nameop *on = dependency(set, op);
		if (!on) {
			op->state = TW_NAMEOP_DONE;
			n--;
			TW_TRY(tw_tell_nameop(set, op));
		} else if (on->state == TW_NAMEOP_PENDING) {
			on->state = TW_NAMEOP_UNDERWAY;
			stack[n++] = on;
		} else {
			TW_TRY(break_cycle(set, stack, &n, op, on));
		}
	}
	return NULL;
}

struct tw_error *tw_nameops_perform(struct tw_changeset *set)
{
	struct tw_nameop **stack = calloc(set->nops + 1, sizeof(struct tw_nameop *));
	if (!stack)
		return tw_error_nomem();
	struct tw_error *err = NULL;
	/* What is replaced or gone first, then directories, so that the rest is spoken of by its
	 * new path. */
	for (size_t i = 0; i < set->nops && !err; i++)
		if (!set->ops[i].to && !tw_changeset_is_dir(set, set->ops[i].ino))
			err = perform(set, stack, &set->ops[i]);
	for (size_t i = 0; i < set->nops && !err; i++)
		if (set->ops[i].kind == TW_NAMEOP_RENAME &&
			tw_changeset_is_dir(set, set->ops[i].ino))
			err = perform(set, stack, &set->ops[i]);
	for (size_t i = 0; i < set->nops && !err; i++)
		err = perform(set, stack, &set->ops[i]);
	free(stack);
	return err;
}
