/* SPDX-License-Identifier: BSD-3-Clause */
#include "volume/missed.h"

#include "base/mem.h"

#include <stdlib.h>

/* A list that grows beyond this is sorted and joined first. */
#define TIDY_AT 65536u

static int by_offset(const void *a, const void *b)
{
	const struct tw_range *x = a, *y = b;
	return x->offset < y->offset ? -1 : x->offset > y->offset;
}

void tw_missed_tidy(struct tw_missed *missed)
{
	size_t n = 0;
	if (missed->n)
		qsort(missed->ranges, missed->n, sizeof(*missed->ranges), by_offset);
	for (size_t i = 0; i < missed->n; i++) {
		struct tw_range r = missed->ranges[i], *last = n ? &missed->ranges[n - 1] : NULL;
		if (!last || r.offset > last->offset + last->length)
			missed->ranges[n++] = r;
		else if (r.offset + r.length > last->offset + last->length)
			last->length = r.offset + r.length - last->offset;
	}
	missed->n = n;
}

struct tw_error *tw_missed_add_range(struct tw_missed *missed, uint64_t offset, uint64_t length)
{
	/* When tidying gains little it is worth its time only after the list has doubled. */
	if (missed->n >= TIDY_AT && missed->n >= 2 * missed->tidied) {
		tw_missed_tidy(missed);
		missed->tidied = missed->n;
	}
	if (!TW_GROW(missed->ranges, missed->n, missed->cap))
		return tw_error_nomem();
	missed->ranges[missed->n++] = (struct tw_range){offset, length};
	return NULL;
}

struct tw_error *tw_missed_add(struct tw_missed *missed, const struct tw_record *record)
{
	if (record->time_ns > missed->last_ns)
		missed->last_ns = record->time_ns;
	return tw_missed_add_range(missed, record->sector << TW_SECTOR_SHIFT,
		(uint64_t)record->nsectors << TW_SECTOR_SHIFT);
}

uint64_t tw_missed_bytes(struct tw_missed *missed)
{
	uint64_t bytes = 0;
	tw_missed_tidy(missed);
	for (size_t i = 0; i < missed->n; i++)
		bytes += missed->ranges[i].length;
	return bytes;
}

bool tw_missed_hits(const struct tw_missed *missed, uint64_t offset, uint64_t length)
{
	size_t low = 0, high = missed->n;
	/* The first one that ends behind the offset. */
	while (low < high) {
		size_t mid = low + (high - low) / 2;
		if (missed->ranges[mid].offset + missed->ranges[mid].length <= offset)
			low = mid + 1;
		else
			high = mid;
	}
	return low < missed->n && missed->ranges[low].offset < offset + length;
}

void tw_missed_clear(struct tw_missed *missed)
{
	free(missed->ranges);
	*missed = (struct tw_missed){0};
}
