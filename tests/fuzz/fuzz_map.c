/* SPDX-License-Identifier: BSD-3-Clause */
/* Input: a byte of flags, i_block, then the beginnings of blocks 1, 2, 3, ..., 128 bytes each. */
#include "ext4/ext4.h"
#include "input.h"

#include <stdlib.h>

enum { BLOCK = 1024, NBLOCKS = 2048, PIECE = 128 };

struct blocks {
	uint8_t *data;
	size_t n; /* blocks 1 .. n; the others are zeroes */
};

static struct tw_error *read_node(void *arg, uint64_t block, const uint8_t **out)
{
	static const uint8_t zeroes[BLOCK];
	const struct blocks *b = arg;
	if (block < 1 || block >= NBLOCKS)
		abort();
	*out = block <= b->n ? b->data + (block - 1) * BLOCK : zeroes;
	return NULL;
}

static struct blocks unfold(struct input *in)
{
	struct blocks b = { .n = (in->size + PIECE - 1) / PIECE };
	b.data = calloc(b.n + 1, BLOCK);
	for (size_t i = 0; b.data && i < b.n; i++)
		take_bytes(in, b.data + i * BLOCK, PIECE);
	return b;
}

static void check(const struct ext4_map *map)
{
	uint64_t next = 0;
	for (uint32_t i = 0; i < map->n; i++) {
		const struct tw_extent *e = &map->extents[i];
		if (!e->count || e->lblk < next || !e->block || e->block + e->count > NBLOCKS)
			abort();
		next = (uint64_t)e->lblk + e->count;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const struct ext4_geometry geo = { .blocksize = BLOCK, .blockbits = 10, .nblocks = NBLOCKS,
		.first_data_block = 1 };
	struct input in = { data, size };
	struct ext4_map map = { 0 };
	uint8_t root[EXT4_MAP_BYTES] = { 0 };
	uint32_t flags = take(&in, 1) & 1 ? EXT4_EXTENTS_FL : 0;
	take_bytes(&in, root, sizeof(root));
	struct blocks blocks = unfold(&in);
	if (!blocks.data)
		return 0;
	struct tw_error *err = ext4_map_walk(&geo, 12, flags, root, read_node, &blocks, &map);
	if (!err)
		check(&map);
	tw_error_destroy(err);
	ext4_map_deinit(&map);
	free(blocks.data);
	return 0;
}
