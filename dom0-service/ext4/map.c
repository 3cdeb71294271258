/* SPDX-License-Identifier: BSD-3-Clause */
#include "ext4/ext4.h"

#include "base/mem.h"

#include <stdlib.h>

/* ifork.rst: extent header and entries are 12 bytes each. */
#define EXTENT_MAGIC 0xf30a
enum {
	EH_MAGIC = 0,
	EH_ENTRIES = 2,
	EH_DEPTH = 6,
	EH_BYTES = 12,
	E_BYTES = 12,
	EE_BLOCK = 0,
	EE_LEN = 4,
	EE_START_HI = 6,
	EE_START_LO = 8,
	EI_BLOCK = 0,
	EI_LEAF_LO = 4,
	EI_LEAF_HI = 8,
	MAX_INIT_LEN = 32768,
	MAX_DEPTH = 5,
};
#define NDIRECT 12u

struct walk {
	const struct ext4_geometry *geo;
	uint32_t ino;
	ext4_node_fn read;
	void *arg;
	struct ext4_map *map;
	uint64_t next_lblk; /* extents come in ascending order */
	uint64_t total;     /* blocks so far */
};

static struct tw_error *bad(const struct walk *w, const char *what)
{
	return tw_error_create(TW_BAD_DATA, "inode %u: %s", w->ino, what);
}

static struct tw_error *add_extent(
	struct walk *w, uint32_t lblk, uint64_t block, uint32_t count, bool unwritten)
{
	struct ext4_map *map = w->map;
	if (!count || lblk < w->next_lblk || !block || block < w->geo->first_data_block ||
		block >= w->geo->nblocks || count > w->geo->nblocks - block)
		return bad(w, "an extent is out of order or out of range");
	w->total += count;
	if (w->total > w->geo->nblocks)
		return bad(w, "it maps more blocks than there are");
	w->next_lblk = (uint64_t)lblk + count;
	if (!TW_GROW(map->extents, map->n, map->cap))
		return tw_error_nomem();
	map->extents[map->n++] = (struct tw_extent){block, lblk, count & TW_EXTENT_MAX, unwritten};
	return NULL;
}

static struct tw_error *add_node(struct walk *w, uint64_t block, const uint8_t **out)
{
	struct ext4_map *map = w->map;
	if (!block || block < w->geo->first_data_block || block >= w->geo->nblocks)
		return bad(w, "a mapping node is out of range");
	if (!TW_GROW(map->nodes, map->nnodes, map->capnodes))
		return tw_error_nomem();
	map->nodes[map->nnodes++] = block;
	return w->read(w->arg, block, out);
}

static struct tw_error *walk_leaf(struct walk *w, struct tw_span node, unsigned entries)
{
	for (unsigned i = 0; i < entries; i++) {
		size_t off = EH_BYTES + (size_t)i * E_BYTES;
		uint32_t len = tw_le16(node, off + EE_LEN);
		uint64_t block = tw_le32(node, off + EE_START_LO) |
				 (uint64_t)tw_le16(node, off + EE_START_HI) << 32;
		bool unwritten = len > MAX_INIT_LEN;
		TW_TRY(add_extent(w, tw_le32(node, off + EE_BLOCK), block,
			unwritten ? len - MAX_INIT_LEN : len, unwritten));
	}
	return NULL;
}

/* Recursion is bounded: the depth goes down by one each time. */
static struct tw_error *walk_extents(struct walk *w, struct tw_span node, int depth)
{
	unsigned entries = tw_le16(node, EH_ENTRIES);
	if (tw_le16(node, EH_MAGIC) != EXTENT_MAGIC || EH_BYTES + entries * E_BYTES > node.len)
		return bad(w, "an extent node has no valid header");
	if (depth < 0)
		depth = tw_le16(node, EH_DEPTH);
	else if (!entries)
		return bad(w, "an extent node is empty");
	if (depth > MAX_DEPTH || tw_le16(node, EH_DEPTH) != depth)
		return bad(w, "an extent node has the wrong depth");
	if (!depth)
		return walk_leaf(w, node, entries);
	for (unsigned i = 0; i < entries; i++) {
		size_t off = EH_BYTES + (size_t)i * E_BYTES;
		uint64_t block = tw_le32(node, off + EI_LEAF_LO) |
				 (uint64_t)tw_le16(node, off + EI_LEAF_HI) << 32;
		const uint8_t *child;
		TW_TRY(add_node(w, block, &child));
		TW_TRY(walk_extents(w, tw_span(child, w->geo->blocksize), depth - 1));
	}
	return NULL;
}

/* Joins with the extent before, as block maps have no extents of their own. */
static struct tw_error *add_block(struct walk *w, uint64_t lblk, uint64_t block)
{
	struct tw_extent *last = w->map->n ? &w->map->extents[w->map->n - 1] : NULL;
	if (!block)
		return NULL;
	if (lblk > UINT32_MAX)
		return bad(w, "a block map is too long");
	if (last && last->block + last->count == block && last->lblk + last->count == lblk &&
		block < w->geo->nblocks && last->count < TW_EXTENT_MAX) {
		if (++w->total > w->geo->nblocks)
			return bad(w, "it maps more blocks than there are");
		last->count++;
		w->next_lblk = lblk + 1;
		return NULL;
	}
	return add_extent(w, (uint32_t)lblk, block, 1, false);
}

static struct tw_error *walk_indirect(struct walk *w, uint64_t block, int level, uint64_t lblk)
{
	uint32_t per_node = w->geo->blocksize / 4;
	uint64_t stride = 1;
	const uint8_t *data;
	if (!block)
		return NULL;
	for (int i = 1; i < level; i++)
		stride *= per_node;
	TW_TRY(add_node(w, block, &data));
	/* Linux frees indirect blocks that map nothing; a loop has many of them. */
	if (w->map->nnodes > 4 * w->total + 64)
		return bad(w, "a block map has more indirect blocks than blocks");
	for (uint32_t i = 0; i < per_node; i++) {
		uint32_t child = tw_le32(tw_span(data, w->geo->blocksize), i * 4ul);
		if (level > 1)
			TW_TRY(walk_indirect(w, child, level - 1, lblk + i * stride));
		else
			TW_TRY(add_block(w, lblk + i, child));
	}
	return NULL;
}

static struct tw_error *walk_block_map(struct walk *w, struct tw_span root)
{
	uint64_t per_node = w->geo->blocksize / 4, lblk = NDIRECT, span = per_node;
	for (uint32_t i = 0; i < NDIRECT; i++)
		TW_TRY(add_block(w, i, tw_le32(root, i * 4ul)));
	for (int level = 1; level <= 3; level++) {
		uint32_t block = tw_le32(root, (NDIRECT + (uint32_t)level - 1) * 4ul);
		TW_TRY(walk_indirect(w, block, level, lblk));
		lblk += span;
		span *= per_node;
	}
	return NULL;
}

struct tw_error *ext4_map_walk(const struct ext4_geometry *geo, uint32_t ino, uint32_t flags,
	const uint8_t root[EXT4_MAP_BYTES], ext4_node_fn read, void *arg, struct ext4_map *out)
{
	struct walk w = {.geo = geo, .ino = ino, .read = read, .arg = arg, .map = out};
	struct tw_span span = tw_span(root, EXT4_MAP_BYTES);
	if (flags & EXT4_EXTENTS_FL)
		return walk_extents(&w, span, -1);
	return walk_block_map(&w, span);
}

void ext4_map_deinit(struct ext4_map *map)
{
	free(map->extents);
	free(map->nodes);
	*map = (struct ext4_map){0};
}

/* Put together as it would be on disk, an entry is compared at once. */
bool ext4_root_is(struct tw_span root, const struct tw_extent *e, uint32_t n)
{
	uint32_t head = htole32(EXTENT_MAGIC | n << 16);
	if (root.len < EH_BYTES || n > (root.len - EH_BYTES) / E_BYTES || tw_le16(root, EH_DEPTH) ||
		memcmp(root.data, &head, sizeof(head)))
		return false;
	for (const uint8_t *at = root.data + EH_BYTES; n--; e++, at += E_BYTES) {
		uint32_t len = e->count + (e->unwritten ? MAX_INIT_LEN : 0);
		const uint32_t entry[] = {htole32(e->lblk),
			htole32(len | (uint32_t)(e->block >> 32) << 16),
			htole32((uint32_t)e->block)};
		_Static_assert(sizeof(entry) == E_BYTES, "an extent on disk");
		if (len > UINT16_MAX || e->block >> 48 || memcmp(at, entry, sizeof(entry)))
			return false;
	}
	return true;
}
