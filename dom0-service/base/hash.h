/* SPDX-License-Identifier: BSD-3-Clause */
/* uthash with xxhash for its function. Iteration is in the order of insertion, so that nothing that
 * is told depends on a hash. */
#ifndef TW_BASE_HASH_H
#define TW_BASE_HASH_H

#include <stdint.h>
#include <string.h>
#include <xxhash.h>

/* Most keys are numbers, whose length the compiler knows. */
static inline uint32_t tw_hash_key(const void *key, size_t len)
{
	uint64_t number = 0;
	if (len > sizeof(number))
		return XXH32(key, len, 0);
	memcpy(&number, key, len);
	return (uint32_t)(number * 0x9e3779b97f4a7c15ull >> 32);
}
#define HASH_FUNCTION(keyptr, keylen, hashv) ((hashv) = tw_hash_key(keyptr, keylen))
#include <uthash.h>

#endif
