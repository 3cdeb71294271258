/* SPDX-License-Identifier: BSD-3-Clause */
#include "ext4/logblocks.h"

#include <stdlib.h>
#include <string.h>

/* Places live in chunks, so that a superblock that boasts costs little. */
#define CHUNK_SHIFT 10
#define CHUNK_PLACES (1u << CHUNK_SHIFT)
/* So many bytes of blocks that were dropped are kept for the next ones. */
#define MAX_SPARE (16u << 20)

struct spare {
	struct spare *next;
};

struct tw_logblocks {
	uint32_t n, blocksize;
	size_t count, nspare;
	struct spare *spare;
	struct tw_logblock **chunks;
};

struct tw_error *tw_logblocks_create(uint32_t n, uint32_t blocksize, struct tw_logblocks **out)
{
	struct tw_logblocks *blocks = calloc(1, sizeof(*blocks));
	if (!blocks)
		return tw_error_nomem();
	blocks->n = n;
	blocks->blocksize = blocksize;
	blocks->chunks = calloc((n >> CHUNK_SHIFT) + 1ul, sizeof(struct tw_logblock *));
	if (!blocks->chunks) {
		free(blocks);
		return tw_error_nomem();
	}
	*out = blocks;
	return NULL;
}

void tw_logblocks_destroy(struct tw_logblocks *blocks)
{
	if (!blocks)
		return;
	tw_logblocks_clear(blocks);
	while (blocks->spare) {
		struct spare *next = blocks->spare->next;
		free(blocks->spare);
		blocks->spare = next;
	}
	for (uint32_t c = 0; c <= blocks->n >> CHUNK_SHIFT; c++)
		free(blocks->chunks[c]);
	free(blocks->chunks);
	free(blocks);
}

struct tw_logblock *tw_logblocks_find(const struct tw_logblocks *blocks, uint32_t at)
{
	struct tw_logblock *chunk = at < blocks->n ? blocks->chunks[at >> CHUNK_SHIFT] : NULL;
	struct tw_logblock *block = chunk ? &chunk[at & (CHUNK_PLACES - 1)] : NULL;
	return block && block->data ? block : NULL;
}

struct tw_error *tw_logblocks_get(
	struct tw_logblocks *blocks, uint32_t at, struct tw_logblock **out)
{
	if (at >= blocks->n)
		return tw_error_create(TW_BAD_DATA, "the journal has no block %u", at);
	struct tw_logblock **chunk = &blocks->chunks[at >> CHUNK_SHIFT];
	if (!*chunk)
		*chunk = calloc(CHUNK_PLACES, sizeof(**chunk));
	if (!*chunk)
		return tw_error_nomem();
	struct tw_logblock *block = &(*chunk)[at & (CHUNK_PLACES - 1)];
	if (!block->data) {
		if (blocks->spare) {
			block->data = (uint8_t *)blocks->spare;
			blocks->spare = blocks->spare->next;
			blocks->nspare--;
		} else {
			block->data = malloc(blocks->blocksize);
		}
		if (!block->data)
			return tw_error_nomem();
		blocks->count++;
	}
	block->has_crc = false;
	*out = block;
	return NULL;
}

void tw_logblocks_drop(struct tw_logblocks *blocks, uint32_t at)
{
	struct tw_logblock *block = tw_logblocks_find(blocks, at);
	if (!block)
		return;
	if (blocks->nspare < MAX_SPARE / blocks->blocksize) {
		struct spare *spare = (struct spare *)(void *)block->data;
		spare->next = blocks->spare;
		blocks->spare = spare;
		blocks->nspare++;
	} else {
		free(block->data);
	}
	block->data = NULL;
	blocks->count--;
}

void tw_logblocks_clear(struct tw_logblocks *blocks)
{
	for (uint32_t c = 0; blocks->count && c <= blocks->n >> CHUNK_SHIFT; c++)
		for (uint32_t i = 0; blocks->chunks[c] && i < CHUNK_PLACES; i++)
			tw_logblocks_drop(blocks, (c << CHUNK_SHIFT) + i);
}

size_t tw_logblocks_count(const struct tw_logblocks *blocks)
{
	return blocks->count;
}

void tw_logblocks_each(const struct tw_logblocks *blocks,
	void (*each)(uint32_t at, const uint8_t *data, void *arg), void *arg)
{
	for (uint32_t c = 0; blocks->count && c <= blocks->n >> CHUNK_SHIFT; c++)
		for (uint32_t i = 0; blocks->chunks[c] && i < CHUNK_PLACES; i++)
			if (blocks->chunks[c][i].data)
				each((c << CHUNK_SHIFT) + i, blocks->chunks[c][i].data, arg);
}
