/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Without a journal, a block may be seen to be two inodes': the one that had it is written later
 * than the one that has it. Whatever is then written there would count for the wrong one, and be
 * nobody's when the first one lets go of it at last.
 */
#include "ext4/trial.h"

#include <stdlib.h>

bool ext4_claims_uneven(const struct ext4 *fs, const struct ext4_map *map, uint32_t flags,
	uint64_t sectors, bool attribute_block)
{
	/* super.rst. Clusters count as a whole; attributes in inodes of their own count, too. */
	enum {
		S_INCOMPAT = 0x60,
		S_RO_COMPAT = 0x64,
		EA_INODE = 0x400,
		BIGALLOC = 0x200,
		HUGE_FILE_FL = 0x40000,
	};
	const struct tw_span sb = tw_span(fs->superblock, sizeof(fs->superblock));
	if (!map->nnodes || tw_le32(sb, S_INCOMPAT) & EA_INODE ||
		tw_le32(sb, S_RO_COMPAT) & BIGALLOC)
		return false;
	uint64_t blocks = map->nnodes + attribute_block;
	for (uint32_t i = 0; i < map->n; i++)
		blocks += map->extents[i].count;
	if (!(flags & HUGE_FILE_FL))
		blocks <<= fs->geo.blockbits - TW_SECTOR_SHIFT;
	return blocks != sectors;
}

/* --- whose mapping has a block --- */

static int by_block(const void *a, const void *b)
{
	const struct ext4_span *x = a, *y = b;
	return (x->block > y->block) - (x->block < y->block);
}

static struct tw_error *sort_spans(struct ext4_suspect *s)
{
	const struct ext4_map *map = &s->map;
	if (s->spans)
		return NULL;
	s->spans = calloc((size_t)map->n + map->nnodes + 1, sizeof(*s->spans));
	if (!s->spans)
		return tw_error_nomem();
	for (uint32_t i = 0; i < map->n; i++)
		s->spans[s->nspans++] = (struct ext4_span){
			map->extents[i].block, map->extents[i].block + map->extents[i].count};
	for (uint32_t i = 0; i < map->nnodes; i++)
		s->spans[s->nspans++] = (struct ext4_span){map->nodes[i], map->nodes[i] + 1};
	qsort(s->spans, s->nspans, sizeof(*s->spans), by_block);
	return NULL;
}

static bool spans_meet(const struct ext4_suspect *s, uint64_t block, uint64_t end)
{
	size_t lo = 0, hi = s->nspans;
	while (lo < hi) {
		size_t mid = (lo + hi) / 2;
		if (s->spans[mid].end > block)
			hi = mid;
		else
			lo = mid + 1;
	}
	return lo < s->nspans && s->spans[lo].block < end;
}

/* True when an inode of the view has this block at this place of its content. */
static bool had(const struct ext4 *fs, uint32_t ino, uint32_t lblk, uint64_t block)
{
	const struct tw_inode *inode = tw_view_inode(fs->view, ino);
	struct tw_extent one;
	uint32_t lo = 0, n = 0;
	const struct tw_extent *e = inode ? tw_inode_extents(inode, &one, &n) : NULL;
	for (uint32_t hi = n; lo < hi;) {
		uint32_t mid = lo + (hi - lo) / 2;
		if ((uint64_t)e[mid].lblk + e[mid].count > lblk)
			hi = mid;
		else
			lo = mid + 1;
	}
	return lo < n && e[lo].lblk <= lblk && e[lo].block + (lblk - e[lo].lblk) == block;
}

/* --- who waits --- */

/* Blocks that a suspect's mapping has: what they are to it, and at which place of its content (of
 * data only). */
struct claim {
	uint64_t block, end;
	uint32_t lblk;
	enum tw_owner_kind kind;
};

static bool is_file_data(enum tw_owner_kind kind)
{
	return kind == TW_OWNER_DATA || kind == TW_OWNER_UNWRITTEN;
}

/* The owner has a part of what s claims. */
static struct tw_error *is_contested(struct ext4_trial *t, const struct ext4_suspect *s,
	const struct claim *c, const struct tw_owner *owner, bool *out)
{
	struct ext4_suspect *other;
	uint64_t from = owner->block > c->block ? owner->block : c->block;
	uint64_t end = owner->block + owner->count;
	*out = false;
	HASH_FIND(hh, t->suspects, &owner->ino, sizeof(owner->ino), other);
	bool walked = other && other->walked && !other->missing && !ext4_trial_holds(t, other->ino);
	if (walked) {
		TW_TRY(sort_spans(other));
		*out = spans_meet(other, from, end < c->end ? end : c->end);
		return NULL;
	}
	/* The latest claim of a block for data holds, until the one before it is made anew. */
	*out = !is_file_data(owner->kind) || !is_file_data(c->kind) ||
	       had(t->fs, s->ino, c->lblk + (uint32_t)(from - c->block), from);
	return NULL;
}

static struct tw_error *hold_claim(
	struct ext4_trial *t, const struct ext4_suspect *s, const struct claim *c, bool *held)
{
	const struct tw_owners *owners = tw_view_owners(t->fs->view);
	struct tw_owner owner;
	for (uint64_t at = c->block;
		!*held && at < c->end && tw_owners_find(owners, at, c->end - at, &owner);
		at = owner.block + owner.count) {
		bool of_inode = is_file_data(owner.kind) || owner.kind == TW_OWNER_DIR ||
				owner.kind == TW_OWNER_NODE || owner.kind == TW_OWNER_SYMLINK;
		if (!of_inode || owner.ino == s->ino)
			continue;
		TW_TRY(is_contested(t, s, c, &owner, held));
		if (!*held)
			continue;
		TW_TRY(ext4_trial_hold(t, s->ino));
		/* What is there now may be the claimer's, and not for the owner to be read by. */
		if (!is_file_data(owner.kind))
			TW_TRY(ext4_trial_hold(t, owner.ino));
	}
	return NULL;
}

static struct tw_error *hold_claims(struct ext4_trial *t, const struct ext4_suspect *s, bool *held)
{
	struct tw_attr was = {0};
	const struct tw_inode *inode = tw_view_inode(t->fs->view, s->ino);
	if (inode)
		was = tw_view_attr(t->fs->view, inode);
	const struct ext4_map *map = &s->map;
	const enum tw_owner_kind kind =
		ext4_data_kind(&t->fs->geo, s->ino, s->slot ? s->now.mode : was.mode);
	for (uint32_t i = 0; !*held && i < map->n; i++) {
		const struct tw_extent *e = &map->extents[i];
		const struct claim c = {e->block, e->block + e->count, e->lblk, kind};
		TW_TRY(hold_claim(t, s, &c, held));
	}
	for (uint32_t i = 0; !*held && i < map->nnodes; i++) {
		const struct claim c = {map->nodes[i], map->nodes[i] + 1, 0, TW_OWNER_NODE};
		TW_TRY(hold_claim(t, s, &c, held));
	}
	return NULL;
}

struct tw_error *ext4_claims_hold(struct ext4_trial *t, bool *more)
{
	for (const struct ext4_suspect *s = t->suspects; s; s = s->hh.next) {
		bool held = false;
		if (!s->walked || s->missing || ext4_trial_holds(t, s->ino) ||
			ext4_trial_waited(t, s->ino))
			continue;
		TW_TRY(hold_claims(t, s, &held));
		*more = *more || held;
	}
	return NULL;
}
