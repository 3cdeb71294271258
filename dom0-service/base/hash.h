/* SPDX-License-Identifier: BSD-3-Clause */
/* uthash with xxhash for its function. Iteration is in the order of insertion, so that nothing that
 * is told depends on a hash. */
#ifndef TW_BASE_HASH_H
#define TW_BASE_HASH_H

#include <xxhash.h>
#define HASH_FUNCTION(keyptr, keylen, hashv) ((hashv) = XXH32(keyptr, keylen, 0))
#include <uthash.h>

#endif
