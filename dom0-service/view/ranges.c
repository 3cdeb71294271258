/* SPDX-License-Identifier: BSD-3-Clause */
#include "view/ranges.h"

#include <stdlib.h>

static int by_offset(const void *a, const void *b)
{
	const struct tw_range *x = a, *y = b;
	return x->offset < y->offset ? -1 : x->offset > y->offset;
}

/* Writes mostly come in order. */
static bool sorted(const struct tw_range *r, size_t n)
{
	for (size_t i = 1; i < n; i++)
		if (r[i].offset < r[i - 1].offset)
			return false;
	return true;
}

size_t tw_ranges_tidy(struct tw_range *r, size_t n, uint64_t size)
{
	size_t m = 0;
	if (!sorted(r, n))
		qsort(r, n, sizeof(*r), by_offset);
	for (size_t i = 0; i < n && r[i].offset < size; i++) {
		if (r[i].length > size - r[i].offset)
			r[i].length = size - r[i].offset;
		if (m && r[i].offset <= r[m - 1].offset + r[m - 1].length) {
			uint64_t end = r[i].offset + r[i].length;
			if (end > r[m - 1].offset + r[m - 1].length)
				r[m - 1].length = end - r[m - 1].offset;
		} else {
			r[m++] = r[i];
		}
	}
	return m;
}

size_t tw_ranges_limit(struct tw_range *r, size_t n, size_t max)
{
	while (n > max) {
		size_t m = 0;
		for (size_t i = 0; i < n; i += 2) {
			struct tw_range both = r[i];
			if (i + 1 < n)
				both.length = r[i + 1].offset + r[i + 1].length - both.offset;
			r[m++] = both;
		}
		n = m;
	}
	return n;
}
