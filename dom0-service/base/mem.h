/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef TW_BASE_MEM_H
#define TW_BASE_MEM_H

#include <stdlib.h>
#include <string.h>

/* A copy of len bytes, whatever they are, with a NUL behind them; the caller frees. NULL: no memory. */
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

#endif
