/* SPDX-License-Identifier: BSD-3-Clause */
#include "content/quiet.h"

#include "base/hash.h"
#include "base/mem.h"

#include <stdlib.h>
#include <string.h>
#include <utlist.h>

struct entry {
	struct tw_quiet_file file;
	int64_t due_ms;
	struct entry *prev, *next;
	UT_hash_handle hh;
};

/* The files that are waited for as long as each other: so the first one in is the first one out. */
struct lane {
	uint64_t quiet_ms;
	struct entry *files;
};

struct tw_quiet {
	size_t max;
	struct entry *table; /* by number */
	struct lane *lanes;  /* as many as there are times in the rules */
	size_t nlanes, caplanes;
	/* of those without a place */
	uint64_t *bits;
	size_t nwords;
	size_t nlate;
	size_t look; /* the word to look at first */
};

struct tw_error *tw_quiet_create(size_t max, struct tw_quiet **out)
{
	*out = calloc(1, sizeof(**out));
	if (!*out)
		return tw_error_nomem();
	(*out)->max = max;
	return NULL;
}

static struct entry *find(const struct tw_quiet *quiet, uint32_t ino)
{
	struct entry *entry;
	HASH_FIND(hh, quiet->table, &ino, sizeof(ino), entry);
	return entry;
}

/* NULL: there is none yet. */
static struct lane *find_lane(const struct tw_quiet *quiet, uint64_t quiet_ms)
{
	for (size_t i = 0; i < quiet->nlanes; i++)
		if (quiet->lanes[i].quiet_ms == quiet_ms)
			return &quiet->lanes[i];
	return NULL;
}

static struct lane *get_lane(struct tw_quiet *quiet, uint64_t quiet_ms)
{
	struct lane *lane = find_lane(quiet, quiet_ms);
	if (lane || !TW_GROW(quiet->lanes, quiet->nlanes, quiet->caplanes))
		return lane;
	lane = &quiet->lanes[quiet->nlanes++];
	*lane = (struct lane){quiet_ms, NULL};
	return lane;
}

static void leave_lane(struct tw_quiet *quiet, struct entry *entry)
{
	struct lane *lane = find_lane(quiet, entry->file.quiet_ms);
	DL_DELETE(lane->files, entry);
}

static void forget(struct tw_quiet *quiet, struct entry *entry)
{
	leave_lane(quiet, entry);
	HASH_DEL(quiet->table, entry);
	free(entry);
}

void tw_quiet_destroy(struct tw_quiet *quiet)
{
	struct entry *entry, *next;
	if (!quiet)
		return;
	HASH_ITER (hh, quiet->table, entry, next)
		forget(quiet, entry);
	free(quiet->lanes);
	free(quiet->bits);
	free(quiet);
}

/* --- those without a place --- */

static bool is_late(const struct tw_quiet *quiet, uint32_t ino)
{
	return ino / 64 < quiet->nwords && quiet->bits[ino / 64] >> ino % 64 & 1;
}

static void clear_late(struct tw_quiet *quiet, uint32_t ino)
{
	if (!is_late(quiet, ino))
		return;
	quiet->bits[ino / 64] &= ~(UINT64_C(1) << ino % 64);
	quiet->nlate--;
}

static struct tw_error *set_late(struct tw_quiet *quiet, uint32_t ino)
{
	size_t word = ino / 64, want = quiet->nwords ? quiet->nwords : 64;
	if (is_late(quiet, ino))
		return NULL;
	while (want <= word)
		want *= 2;
	if (want > quiet->nwords) {
		uint64_t *more = reallocarray(quiet->bits, want, sizeof(*more));
		if (!more)
			return tw_error_nomem();
		memset(more + quiet->nwords, 0, (want - quiet->nwords) * sizeof(*more));
		quiet->bits = more;
		quiet->nwords = want;
	}
	quiet->bits[word] |= UINT64_C(1) << ino % 64;
	quiet->nlate++;
	return NULL;
}

uint32_t tw_quiet_take_late(struct tw_quiet *quiet)
{
	if (!quiet->nlate || HASH_COUNT(quiet->table) >= quiet->max)
		return 0;
	while (quiet->look >= quiet->nwords || !quiet->bits[quiet->look])
		quiet->look = quiet->look < quiet->nwords ? quiet->look + 1 : 0;
	uint32_t ino = (uint32_t)(quiet->look * 64) + (uint32_t)__builtin_ctzll(quiet->bits[quiet->look]);
	clear_late(quiet, ino);
	return ino;
}

/* --- those with one --- */

static struct tw_error *add(struct tw_quiet *quiet, uint32_t ino, struct entry **out)
{
	*out = NULL;
	if (HASH_COUNT(quiet->table) >= quiet->max)
		return set_late(quiet, ino);
	*out = calloc(1, sizeof(**out));
	if (!*out)
		return tw_error_nomem();
	(*out)->file.ino = ino;
	HASH_ADD(hh, quiet->table, file.ino, sizeof((*out)->file.ino), *out);
	clear_late(quiet, ino);
	return NULL;
}

struct tw_error *tw_quiet_put(
	struct tw_quiet *quiet, const struct tw_quiet_file *file, int64_t now_ms)
{
	struct lane *lane = get_lane(quiet, file->quiet_ms);
	struct entry *entry = find(quiet, file->ino);
	if (!lane)
		return tw_error_nomem();
	if (entry)
		leave_lane(quiet, entry);
	else
		TW_TRY(add(quiet, file->ino, &entry));
	if (!entry)
		return NULL;
	entry->file = *file;
	entry->due_ms = now_ms + (int64_t)file->quiet_ms;
	DL_APPEND(lane->files, entry);
	return NULL;
}

bool tw_quiet_again(struct tw_quiet *quiet, uint32_t ino, int64_t now_ms)
{
	struct entry *entry = find(quiet, ino);
	if (!entry)
		return false;
	struct lane *lane = find_lane(quiet, entry->file.quiet_ms);
	DL_DELETE(lane->files, entry);
	DL_APPEND(lane->files, entry);
	entry->due_ms = now_ms + (int64_t)entry->file.quiet_ms;
	return true;
}

void tw_quiet_drop(struct tw_quiet *quiet, uint32_t ino)
{
	struct entry *entry = find(quiet, ino);
	if (entry)
		forget(quiet, entry);
	clear_late(quiet, ino);
}

bool tw_quiet_has(const struct tw_quiet *quiet, uint32_t ino)
{
	return find(quiet, ino) || is_late(quiet, ino);
}

const struct tw_quiet_file *tw_quiet_get(const struct tw_quiet *quiet, uint32_t ino)
{
	const struct entry *entry = find(quiet, ino);
	return entry ? &entry->file : NULL;
}

static const struct entry *first(const struct tw_quiet *quiet)
{
	const struct entry *best = NULL;
	for (size_t i = 0; i < quiet->nlanes; i++) {
		const struct entry *entry = quiet->lanes[i].files;
		if (entry && (!best || entry->due_ms < best->due_ms))
			best = entry;
	}
	return best;
}

bool tw_quiet_due(const struct tw_quiet *quiet, int64_t now_ms, struct tw_quiet_file *out)
{
	const struct entry *entry = first(quiet);
	if (!entry || entry->due_ms > now_ms)
		return false;
	*out = entry->file;
	return true;
}

int64_t tw_quiet_next(const struct tw_quiet *quiet)
{
	const struct entry *entry = first(quiet);
	return entry ? entry->due_ms : INT64_MAX;
}

size_t tw_quiet_count(const struct tw_quiet *quiet)
{
	return HASH_COUNT(quiet->table);
}

size_t tw_quiet_late(const struct tw_quiet *quiet)
{
	return quiet->nlate;
}

void tw_quiet_each(const struct tw_quiet *quiet,
	void (*each)(const struct tw_quiet_file *file, void *arg), void *arg)
{
	const struct entry *entry, *next;
	HASH_ITER (hh, quiet->table, entry, next)
		each(&entry->file, arg);
	for (size_t i = 0; quiet->nlate && i < quiet->nwords * 64; i++)
		if (is_late(quiet, (uint32_t)i))
			each(&(struct tw_quiet_file){.ino = (uint32_t)i}, arg);
}
