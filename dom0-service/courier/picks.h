/* SPDX-License-Identifier: BSD-3-Clause */
/* A set of event numbers in ascending order, as runs: what a batch takes out of the stream of all events. */
#ifndef TW_COURIER_PICKS_H
#define TW_COURIER_PICKS_H

#include "base/buf.h"
#include "base/error.h"
#include <stdbool.h>
#include <stdint.h>

struct tw_picks {
	int64_t first; /* the least and the greatest number; first > last: none */
	int64_t last;
	uint64_t count;
	struct tw_buf runs; /* u32 each: numbers taken, numbers left out, taken, ... from first on */
};

void tw_picks_deinit(struct tw_picks *picks);
void tw_picks_reset(struct tw_picks *picks);
/* Adds the n numbers from id on, which is beyond last. A failure is remembered in runs.failed. */
void tw_picks_add(struct tw_picks *picks, int64_t id, uint32_t n);

/* Walks over the runs: tw_picks_begin(), then tw_picks_next() until it is false. */
struct tw_picks_walk {
	const struct tw_picks *picks;
	size_t at;
	int64_t id;
};
struct tw_picks_walk tw_picks_begin(const struct tw_picks *picks);
bool tw_picks_next(struct tw_picks_walk *walk, int64_t *id, uint32_t *n);

/* Takes runs that were stored and checks that they are what first, last and count say. TW_BAD_DATA. */
struct tw_error *tw_picks_load(struct tw_picks *picks, int64_t first, int64_t last, uint64_t count,
	const void *runs, size_t bytes) TW_MUST_CHECK;

#endif
