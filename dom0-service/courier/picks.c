/* SPDX-License-Identifier: BSD-3-Clause */
#include "courier/picks.h"

#include <string.h>

static uint32_t run_at(const struct tw_picks *picks, size_t n)
{
	uint32_t run;
	memcpy(&run, picks->runs.data + n * sizeof(run), sizeof(run));
	return run;
}

static size_t nruns(const struct tw_picks *picks)
{
	return picks->runs.len / sizeof(uint32_t);
}

void tw_picks_deinit(struct tw_picks *picks)
{
	tw_buf_deinit(&picks->runs);
	*picks = (struct tw_picks){ .last = -1 };
}

void tw_picks_reset(struct tw_picks *picks)
{
	tw_buf_reset(&picks->runs);
	picks->first = 0;
	picks->last = -1;
	picks->count = 0;
}

void tw_picks_add(struct tw_picks *picks, int64_t id, uint32_t n)
{
	if (!n)
		return;
	if (!picks->count) {
		picks->first = id;
		tw_buf_append(&picks->runs, &n, sizeof(n));
	} else if (id == picks->last + 1) {
		uint32_t grown = run_at(picks, nruns(picks) - 1) + n;
		memcpy(picks->runs.data + picks->runs.len - sizeof(grown), &grown, sizeof(grown));
	} else {
		uint32_t skip = (uint32_t)(id - picks->last - 1);
		tw_buf_append(&picks->runs, &skip, sizeof(skip));
		tw_buf_append(&picks->runs, &n, sizeof(n));
	}
	picks->last = id + n - 1;
	picks->count += n;
}

struct tw_picks_walk tw_picks_begin(const struct tw_picks *picks)
{
	return (struct tw_picks_walk){ .picks = picks, .id = picks->first };
}

bool tw_picks_next(struct tw_picks_walk *walk, int64_t *id, uint32_t *n)
{
	if (walk->at >= nruns(walk->picks))
		return false;
	if (walk->at)
		walk->id += run_at(walk->picks, walk->at++);
	*id = walk->id;
	*n = run_at(walk->picks, walk->at++);
	walk->id += *n;
	return true;
}

struct tw_error *tw_picks_load(struct tw_picks *picks, int64_t first, int64_t last, uint64_t count,
	const void *runs, size_t bytes)
{
	tw_picks_reset(picks);
	if (!bytes && first <= last && last - first < UINT32_MAX) { /* all of them: nothing is stored */
		tw_picks_add(picks, first, (uint32_t)(last - first + 1));
	} else {
		tw_buf_append(&picks->runs, runs, bytes);
		picks->first = first;
		int64_t id = first;
		for (size_t i = 0; i < nruns(picks); i++) {
			id += run_at(picks, i);
			picks->count += i % 2 ? 0 : run_at(picks, i);
		}
		picks->last = id - 1;
	}
	if (picks->runs.failed)
		return tw_error_nomem();
	if (bytes % sizeof(uint32_t) || (bytes && nruns(picks) % 2 == 0) || picks->last != last ||
		picks->count != count || !count)
		return tw_error_create(TW_BAD_DATA, "a planned batch contradicts itself");
	return NULL;
}
