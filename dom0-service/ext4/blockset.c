/* SPDX-License-Identifier: BSD-3-Clause */
#include "ext4/ext4.h"

#include <stdlib.h>

struct ext4_blockset {
	struct ext4_blockset_entry *entries;
};

struct ext4_blockset *ext4_blockset_create(void)
{
	return calloc(1, sizeof(struct ext4_blockset));
}

static struct ext4_blockset_entry *find(const struct ext4_blockset *set, uint64_t block)
{
	struct ext4_blockset_entry *entry;
	HASH_FIND(hh, set->entries, &block, sizeof(block), entry);
	return entry;
}

struct tw_error *ext4_blockset_add(struct ext4_blockset *set, uint64_t block, const uint8_t *data)
{
	struct ext4_blockset_entry *entry = find(set, block);
	if (entry) {
		entry->data = data;
		return NULL;
	}
	entry = malloc(sizeof(*entry));
	if (!entry)
		return tw_error_nomem();
	entry->block = block;
	entry->data = data;
	HASH_ADD(hh, set->entries, block, sizeof(entry->block), entry);
	return NULL;
}

const uint8_t *ext4_blockset_find(const struct ext4_blockset *set, uint64_t block)
{
	const struct ext4_blockset_entry *entry = find(set, block);
	return entry ? entry->data : NULL;
}

const struct ext4_blockset_entry *ext4_blockset_next(
	const struct ext4_blockset *set, const struct ext4_blockset_entry *entry)
{
	return entry ? entry->hh.next : set->entries;
}

void ext4_blockset_destroy(struct ext4_blockset *set)
{
	if (!set)
		return;
	struct ext4_blockset_entry *entry, *next;
	HASH_ITER (hh, set->entries, entry, next) {
		HASH_DEL(set->entries, entry);
		free(entry);
	}
	free(set);
}
