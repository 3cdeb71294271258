/* SPDX-License-Identifier: BSD-3-Clause */
/* A table from numbers above 0 to numbers, of 12 bytes an entry and its share of the room. */
#ifndef TW_BASE_NUMTAB_H
#define TW_BASE_NUMTAB_H

#include "base/error.h"
#include <stdbool.h>
#include <stdint.h>

/* Zeroed, it is an empty one. */
struct tw_numtab {
	uint32_t *keys; /* 0: an empty place */
	uint64_t *values;
	uint32_t n, mask;
};

struct tw_error *tw_numtab_set(struct tw_numtab *tab, uint32_t key, uint64_t value) TW_MUST_CHECK;
/* False: there is none, and out is left alone. */
bool tw_numtab_get(const struct tw_numtab *tab, uint32_t key, uint64_t *out);
void tw_numtab_drop(struct tw_numtab *tab, uint32_t key);
/* Takes everything out. The memory stays for what comes next, unless it is far too much for what
 * was there. */
void tw_numtab_empty(struct tw_numtab *tab);
/* Frees what it holds; it is an empty one again. */
void tw_numtab_clear(struct tw_numtab *tab);

#endif
