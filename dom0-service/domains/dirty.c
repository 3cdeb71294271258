/* SPDX-License-Identifier: BSD-3-Clause */
#include "domains/dirty.h"
#include "base/hash.h"

#include <stdlib.h>

struct guest {
	unsigned domid;
	bool marked;
	bool looked; /* at least once */
	uint64_t looked_at;
	uint64_t pause;
	uint64_t due_at; /* when marked */
	UT_hash_handle hh;
};

struct tw_dirty {
	struct guest *guests;
	struct tw_dirty_stats stats;
};

struct tw_error *tw_dirty_create(struct tw_dirty **out)
{
	*out = calloc(1, sizeof(**out));
	return *out ? NULL : tw_error_nomem();
}

void tw_dirty_clear(struct tw_dirty *dirty)
{
	struct guest *guest, *next;
	HASH_ITER (hh, dirty->guests, guest, next) {
		HASH_DEL(dirty->guests, guest);
		free(guest);
	}
}

void tw_dirty_destroy(struct tw_dirty *dirty)
{
	if (!dirty)
		return;
	tw_dirty_clear(dirty);
	free(dirty);
}

static struct guest *find(const struct tw_dirty *dirty, unsigned domid)
{
	struct guest *guest;
	HASH_FIND(hh, dirty->guests, &domid, sizeof(domid), guest);
	return guest;
}

/* An event soon after the last look makes the pause longer; a guest that was quiet begins anew. */
static void set_pace(struct guest *guest, uint64_t now)
{
	if (guest->looked && now - guest->looked_at < 2 * guest->pause)
		guest->pause *= 2;
	else
		guest->pause = TW_DIRTY_PAUSE_MIN_MS;
	if (guest->pause > TW_DIRTY_PAUSE_MAX_MS)
		guest->pause = TW_DIRTY_PAUSE_MAX_MS;
}

struct tw_error *tw_dirty_mark(struct tw_dirty *dirty, unsigned domid, uint64_t now)
{
	struct guest *guest = find(dirty, domid);
	dirty->stats.marks++;
	if (!guest) {
		guest = calloc(1, sizeof(*guest));
		if (!guest)
			return tw_error_nomem();
		guest->domid = domid;
		HASH_ADD(hh, dirty->guests, domid, sizeof(guest->domid), guest);
	}
	if (guest->marked)
		return NULL;
	uint64_t wait = guest->looked ? guest->looked_at + guest->pause : 0;
	set_pace(guest, now);
	guest->marked = true;
	guest->due_at = wait > now ? wait : now;
	if (wait > now)
		dirty->stats.held++;
	return NULL;
}

static struct guest *next_due(const struct tw_dirty *dirty)
{
	struct guest *guest, *next, *first = NULL;
	HASH_ITER (hh, dirty->guests, guest, next)
		if (guest->marked && (!first || guest->due_at < first->due_at))
			first = guest;
	return first;
}

size_t tw_dirty_take(struct tw_dirty *dirty, uint64_t now, unsigned *domids, size_t max)
{
	size_t n = 0;
	struct guest *guest;
	while (n < max && (guest = next_due(dirty)) && guest->due_at <= now) {
		guest->marked = false;
		guest->looked = true;
		guest->looked_at = now;
		dirty->stats.looks++;
		domids[n++] = guest->domid;
	}
	return n;
}

int64_t tw_dirty_due(const struct tw_dirty *dirty, uint64_t now)
{
	const struct guest *guest = next_due(dirty);
	if (!guest)
		return -1;
	return guest->due_at > now ? (int64_t)(guest->due_at - now) : 0;
}

void tw_dirty_forget(struct tw_dirty *dirty, unsigned domid)
{
	struct guest *guest = find(dirty, domid);
	if (!guest)
		return;
	HASH_DEL(dirty->guests, guest);
	free(guest);
}

const struct tw_dirty_stats *tw_dirty_stats(const struct tw_dirty *dirty)
{
	return &dirty->stats;
}
