/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TW_BASE_MEM_H
#define TW_BASE_MEM_H

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

/* A copy of len bytes, whatever they are, with a NUL behind them; the caller frees. NULL: no
 * memory. */
static inline char *tw_memdup(const void *data, size_t len)
{
	char *copy = malloc(len + 1);
	if (!copy)
		return NULL;
	if (len)
		memcpy(copy, data, len);
	copy[len] = '\0';
	return copy;
}

/* Makes room for one more element in an array that grows by doubling. False: no memory, and nothing
 * has changed. */
#define TW_GROW(array, n, cap)                                                                     \
	({                                                                                         \
		bool tw_grown = true;                                                              \
		if ((n) == (cap)) {                                                                \
			size_t tw_cap = (cap) ? (cap)*2ul : 8;                                     \
			void *tw_more = reallocarray((array), tw_cap, sizeof(*(array)));           \
			tw_grown = tw_more != NULL;                                                \
			if (tw_grown) {                                                            \
				(array) = tw_more;                                                 \
				(cap) = (__typeof__(cap))tw_cap;                                   \
			}                                                                          \
		}                                                                                  \
		tw_grown;                                                                          \
	})

#endif
