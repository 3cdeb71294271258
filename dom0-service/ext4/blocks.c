/* SPDX-License-Identifier: BSD-3-Clause */
#include "ext4/ext4.h"

#include <stdlib.h>
#include <string.h>
#include <xxhash.h>
#if defined(__x86_64__)
#include <xxh_x86dispatch.h> /* the same digest, by the widest registers that there are */
#endif

struct ext4_block *ext4_block_find(struct ext4_block *table, uint64_t block)
{
	struct ext4_block *entry;
	HASH_FIND(hh, table, &block, sizeof(block), entry);
	return entry;
}

struct tw_error *ext4_block_get(struct ext4_block **table, uint64_t block, struct ext4_block **out)
{
	struct ext4_block *entry = ext4_block_find(*table, block);
	if (!entry) {
		entry = calloc(1, sizeof(*entry));
		if (!entry)
			return tw_error_nomem();
		entry->block = block;
		HASH_ADD(hh, *table, block, sizeof(entry->block), entry);
	}
	*out = entry;
	return NULL;
}

struct tw_error *ext4_block_store(struct ext4_block **table, uint64_t block, uint32_t ino,
	const uint8_t *data, uint32_t blocksize)
{
	struct ext4_block *entry;
	TW_TRY(ext4_block_get(table, block, &entry));
	if (!entry->data)
		entry->data = malloc(blocksize);
	if (!entry->data)
		return tw_error_nomem();
	memcpy(entry->data, data, blocksize);
	entry->ino = ino;
	return NULL;
}

void ext4_block_drop(struct ext4_block **table, uint64_t block)
{
	struct ext4_block *entry = ext4_block_find(*table, block);
	if (!entry)
		return;
	HASH_DEL(*table, entry);
	free(entry->data);
	free(entry);
}

void ext4_block_clear(struct ext4_block **table)
{
	struct ext4_block *entry, *next;
	HASH_ITER (hh, *table, entry, next) {
		HASH_DEL(*table, entry);
		free(entry->data);
		free(entry);
	}
}

uint64_t ext4_digest(const void *data, size_t len)
{
	return XXH3_64bits(data, len);
}
