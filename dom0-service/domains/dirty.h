/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Which guests have to be looked at again. Many events about one guest are one look; and a guest about which there are
 * events all the time is looked at ever less often, up to once in TW_DIRTY_PAUSE_MAX_MS, so that it takes no more of
 * the service's time than any other. Times are a clock's milliseconds, of the caller's choice.
 */
#ifndef TW_DOMAINS_DIRTY_H
#define TW_DOMAINS_DIRTY_H

#include "base/error.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TW_DIRTY_PAUSE_MIN_MS 20
#define TW_DIRTY_PAUSE_MAX_MS 2000

struct tw_dirty;

struct tw_dirty_stats {
	uint64_t marks; /* events */
	uint64_t looks; /* that came of them */
	uint64_t held;  /* looks that had to wait for a guest's pause */
};

struct tw_error *tw_dirty_create(struct tw_dirty **out) TW_MUST_CHECK;
void tw_dirty_destroy(struct tw_dirty *dirty);

/* Something has changed about a guest. */
struct tw_error *tw_dirty_mark(struct tw_dirty *dirty, unsigned domid, uint64_t now) TW_MUST_CHECK;
/* Takes up to max guests whose time has come, the longest waiting first. Returns how many. */
size_t tw_dirty_take(struct tw_dirty *dirty, uint64_t now, unsigned *domids, size_t max);
/* Milliseconds until there is one to take; -1: there is none. */
int64_t tw_dirty_due(const struct tw_dirty *dirty, uint64_t now);
/* The guest is gone, and so is what is known of its pace. */
void tw_dirty_forget(struct tw_dirty *dirty, unsigned domid);
/* Forgets all guests; the statistics stay. */
void tw_dirty_clear(struct tw_dirty *dirty);
const struct tw_dirty_stats *tw_dirty_stats(const struct tw_dirty *dirty);

#endif
