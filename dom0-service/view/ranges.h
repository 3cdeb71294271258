/* SPDX-License-Identifier: BSD-3-Clause */
/* Lists of ranges of bytes. */
#ifndef TW_VIEW_RANGES_H
#define TW_VIEW_RANGES_H

#include "event/event.h"

/* Sorts the ranges, joins what overlaps or touches, and cuts them at size. Returns how many are
 * left. */
size_t tw_ranges_tidy(struct tw_range *ranges, size_t n, uint64_t size);
/* Joins tidy ranges with their neighbours over the holes until there are at most max. */
size_t tw_ranges_limit(struct tw_range *ranges, size_t n, size_t max);

#endif
