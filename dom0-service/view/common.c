/* SPDX-License-Identifier: BSD-3-Clause */
/* What inodes share: a table of values with reference counts. A guest may make each inode another
 * one; then it costs what a field of each inode would have cost. */
#include "view/inside.h"

#include "base/mem.h"

#include <stdlib.h>
#include <string.h>

#define FIRST_PLACES 64u

struct tw_error *tw_commons_init(struct tw_commons *commons)
{
	commons->at = calloc(FIRST_PLACES, sizeof(*commons->at));
	commons->places = calloc(FIRST_PLACES, sizeof(*commons->places));
	if (!commons->at || !commons->places)
		return tw_error_nomem();
	commons->n = 1;
	commons->cap = FIRST_PLACES;
	commons->mask = FIRST_PLACES - 1;
	return NULL;
}

void tw_commons_deinit(struct tw_commons *commons)
{
	free(commons->at);
	free(commons->places);
}

static uint64_t mix(uint64_t h, uint64_t value)
{
	h = (h ^ value) * 0x9e3779b97f4a7c15ull;
	return h ^ h >> 32;
}

static uint32_t hash_of(const struct tw_common *c)
{
	uint64_t h = mix(c->xattrs, c->mode | (uint64_t)c->flags << 32);
	return (uint32_t)mix(mix(h, c->uid | (uint64_t)c->gid << 32), c->rdev);
}

static bool same(const struct tw_common *a, const struct tw_common *b)
{
	return a->mode == b->mode && a->uid == b->uid && a->gid == b->gid && a->flags == b->flags &&
	       a->rdev == b->rdev && a->xattrs == b->xattrs;
}

/* The place of an equal one, or the empty place where it would go. */
static uint32_t place_of(const struct tw_commons *commons, const struct tw_common *c)
{
	uint32_t at = hash_of(c) & commons->mask;
	while (commons->places[at] && !same(&commons->at[commons->places[at]], c))
		at = (at + 1) & commons->mask;
	return at;
}

static struct tw_error *more_places(struct tw_commons *commons)
{
	uint32_t n = (commons->mask + 1) * 2, *old = commons->places, was = commons->mask;
	uint32_t *places = calloc(n, sizeof(*places));
	if (!places)
		return tw_error_nomem();
	commons->places = places;
	commons->mask = n - 1;
	for (uint32_t i = 0; i <= was; i++)
		if (old[i])
			places[place_of(commons, &commons->at[old[i]])] = old[i];
	free(old);
	return NULL;
}

static struct tw_error *add(struct tw_commons *commons, const struct tw_common *c, uint32_t *out)
{
	uint32_t number = commons->unused;
	if (2 * (commons->used + 1) > commons->mask)
		TW_TRY(more_places(commons));
	if (number)
		commons->unused = commons->at[number].uid;
	else if (!TW_GROW(commons->at, commons->n, commons->cap))
		return tw_error_nomem();
	else
		number = commons->n++;
	commons->at[number] = *c;
	commons->at[number].refs = 1;
	commons->places[place_of(commons, c)] = number;
	commons->used++;
	*out = number;
	return NULL;
}

struct tw_error *tw_commons_get(
	struct tw_commons *commons, const struct tw_attr *attr, uint32_t *out)
{
	struct tw_common c = {.xattrs = attr->xattrs,
		.flags = attr->flags,
		.uid = attr->uid,
		.gid = attr->gid,
		.rdev = attr->rdev,
		.mode = attr->mode};
	static const struct tw_common none;
	*out = 0;
	if (same(&c, &none))
		return NULL;
	uint32_t number = commons->last;
	if (!number || !commons->at[number].refs || !same(&commons->at[number], &c))
		number = commons->places[place_of(commons, &c)];
	if (number)
		commons->at[number].refs++;
	else
		TW_TRY(add(commons, &c, &number));
	*out = commons->last = number;
	return NULL;
}

/* Takes a place out of the table; those that were pushed on by it move up. */
static void empty_place(struct tw_commons *commons, uint32_t at)
{
	uint32_t hole = at;
	commons->places[hole] = 0;
	for (at = (at + 1) & commons->mask; commons->places[at]; at = (at + 1) & commons->mask) {
		uint32_t home = hash_of(&commons->at[commons->places[at]]) & commons->mask;
		if (((at - home) & commons->mask) < ((at - hole) & commons->mask))
			continue;
		commons->places[hole] = commons->places[at];
		commons->places[at] = 0;
		hole = at;
	}
}

void tw_commons_put(struct tw_commons *commons, uint32_t number)
{
	if (!number || --commons->at[number].refs)
		return;
	empty_place(commons, place_of(commons, &commons->at[number]));
	commons->used--;
	commons->at[number].uid = commons->unused;
	commons->unused = number;
}

uint32_t tw_view_commons(const struct tw_view *view)
{
	return view->commons.used;
}

void tw_view_xattrs(const struct tw_view *view, void (*each)(void *arg, uint64_t xattrs), void *arg)
{
	for (uint32_t i = 1; i < view->commons.n; i++)
		if (view->commons.at[i].refs && view->commons.at[i].xattrs)
			each(arg, view->commons.at[i].xattrs);
}
