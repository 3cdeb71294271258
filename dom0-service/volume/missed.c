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

static void tidy(struct tw_missed *missed)
{
	size_t n = 0;
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
		tidy(missed);
		missed->tidied = missed->n;
	}
	if (!TW_GROW(missed->ranges, missed->n, missed->cap))
		return tw_error_nomem();
	missed->ranges[missed->n++] = (struct tw_range){offset, length};
	return NULL;
}

struct tw_error *tw_missed_add(struct tw_missed *missed, const struct tw_record *record)
{
	return tw_missed_add_range(missed, record->sector << TW_SECTOR_SHIFT,
		(uint64_t)record->nsectors << TW_SECTOR_SHIFT);
}

void tw_missed_clear(struct tw_missed *missed)
{
	free(missed->ranges);
	*missed = (struct tw_missed){0};
}
