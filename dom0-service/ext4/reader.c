/* SPDX-License-Identifier: BSD-3-Clause */
#include "ext4/ext4.h"

#include <stdlib.h>

struct tw_error *ext4_reader_block(struct ext4_reader *reader, uint64_t block, const uint8_t **out)
{
	const uint8_t *data = reader->txn ? ext4_blockset_find(reader->txn, block) : NULL;
	struct ext4_block *entry = NULL;
	if (!data && reader->early)
		entry = ext4_block_find(*reader->early, block);
	if (!data && !entry && reader->nodes)
		entry = ext4_block_find(*reader->nodes, block);
	if (!data && !entry)
		entry = ext4_block_find(reader->loaded, block);
	if (!data && !entry && !reader->source)
		return tw_error_create(TW_GAP,
			"block %llu is metadata now, and was written before that was known",
			(unsigned long long)block);
	if (!data && !entry) {
		TW_TRY(ext4_block_get(&reader->loaded, block, &entry));
		entry->data = malloc(reader->geo->blocksize);
		if (!entry->data)
			return tw_error_nomem();
		TW_TRY(tw_source_read(reader->source, block << reader->geo->blockbits, entry->data,
			reader->geo->blocksize));
	}
	*out = data ? data : entry->data;
	return NULL;
}

void ext4_reader_deinit(struct ext4_reader *reader)
{
	ext4_block_clear(&reader->loaded);
}
