/* SPDX-License-Identifier: BSD-3-Clause */
/* uthash with xxhash for its function. Iteration is in the order of insertion, so that nothing that
 * is told depends on a hash. */
#ifndef TW_BASE_HASH_H
#define TW_BASE_HASH_H

#include <stdint.h>
#include <string.h>
#include <xxhash.h>

/* Of short texts, mostly names. seed: what else is in the key. */
static inline uint32_t tw_hash_bytes(const void *bytes, size_t len, uint64_t seed)
{
	const uint64_t k = 0x9e3779b97f4a7c15ull;
	const char *at = bytes;
	uint64_t h = (seed ^ len) * k, word = 0;
	for (size_t left = len; left > sizeof(word); left -= sizeof(word), at += sizeof(word)) {
		memcpy(&word, at, sizeof(word));
		h = (h ^ h >> 32 ^ word) * k;
	}
	/* The last eight bytes, which may be some of those before once more, or all there are. */
	size_t rest = len < sizeof(word) ? len : sizeof(word);
	word = 0;
	memcpy(&word, (const char *)bytes + len - rest, rest);
	h = (h ^ h >> 32 ^ word) * k;
	return (uint32_t)(h >> 32);
}

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
