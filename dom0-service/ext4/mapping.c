/* SPDX-License-Identifier: BSD-3-Clause */
#include "ext4/ext4.h"

#include "base/log.h"

#include <stdlib.h>
#include <sys/stat.h>

struct ext4_root *ext4_root_find(const struct ext4 *fs, uint32_t ino)
{
	struct ext4_root *root;
	HASH_FIND(hh, fs->roots, &ino, sizeof(ino), root);
	return root;
}

static void root_drop(struct ext4 *fs, struct ext4_root *root)
{
	HASH_DEL(fs->roots, root);
	free(root->nodes);
	free(root);
}

void ext4_roots_clear(struct ext4 *fs)
{
	struct ext4_root *root, *next;
	HASH_ITER (hh, fs->roots, root, next)
		root_drop(fs, root);
}

static struct tw_error *read_node(void *arg, uint64_t block, const uint8_t **out)
{
	return ext4_reader_block(arg, block, out);
}

/* Devices, fifos and fast symlinks keep something else in i_block. */
static bool has_map(const struct ext4_remap *remap)
{
	if (S_ISREG(remap->mode) || S_ISDIR(remap->mode))
		return true;
	return S_ISLNK(remap->mode) && !remap->fast_symlink;
}

struct tw_error *ext4_remap_walk(
	struct ext4 *fs, struct ext4_remap *remap, struct ext4_reader *reader)
{
	/* The resize inode maps the reserved descriptor blocks in a way of its own. */
	if (!has_map(remap) || (remap->ino < fs->geo.first_ino && remap->ino != EXT4_ROOT_INO &&
				       remap->ino != fs->geo.journal_ino))
		return NULL;
	struct tw_error *err = ext4_map_walk(
		&fs->geo, remap->ino, remap->flags, remap->root, read_node, reader, &remap->map);
	if (err && tw_error_code(err) == TW_BAD_DATA) {
		tw_log(TW_LOG_WARN, fs->env.subject, "%s: its content is not followed",
			tw_error_message(err));
		tw_error_destroy(err);
		ext4_map_deinit(&remap->map);
		return NULL;
	}
	return err;
}

static bool same_extent(const struct tw_extent *a, const struct tw_extent *b)
{
	return a->block == b->block && a->lblk == b->lblk && a->count == b->count &&
	       a->unwritten == b->unwritten;
}

/* The stretch of extents in which the old and the new mapping differ. */
struct middle {
	uint32_t from, old_end, new_end;
};

static struct middle differing(
	const struct tw_inode *inode, const struct ext4_remap *remap, bool replaced)
{
	struct middle m = {0, inode ? inode->nextents : 0, remap->map.n};
	if (replaced)
		return m;
	const struct tw_extent *old = inode ? inode->extents : NULL, *new = remap->map.extents;
	while (m.from < m.old_end && m.from < m.new_end && same_extent(&old[m.from], &new[m.from]))
		m.from++;
	while (m.old_end > m.from && m.new_end > m.from &&
		same_extent(&old[m.old_end - 1], &new[m.new_end - 1])) {
		m.old_end--;
		m.new_end--;
	}
	return m;
}

static bool kind_changed(const struct ext4 *fs, const struct ext4_remap *remap)
{
	return ext4_data_kind(&fs->geo, remap->ino, remap->old_mode) !=
	       ext4_data_kind(&fs->geo, remap->ino, remap->mode);
}

struct tw_error *ext4_remap_release(struct ext4 *fs, const struct ext4_remap *remap)
{
	const struct tw_inode *inode = tw_view_inode(fs->view, remap->ino);
	struct middle m = differing(inode, remap, kind_changed(fs, remap));
	if (m.old_end > m.from)
		TW_TRY(tw_view_release_extents(fs->view, remap->ino, inode->extents + m.from,
			m.old_end - m.from, ext4_data_kind(&fs->geo, remap->ino, remap->old_mode)));
	const struct ext4_root *root = ext4_root_find(fs, remap->ino);
	for (uint32_t i = 0; root && i < root->nnodes; i++)
		TW_TRY(tw_owners_clear(
			tw_view_owners(fs->view), root->nodes[i], 1, remap->ino, TW_OWNER_NODE));
	return NULL;
}

/* Nodes that the mapping has no more are forgotten, unless another inode has taken the block. */
static void forget_nodes(struct ext4 *fs, struct ext4_root *root)
{
	for (uint32_t i = 0; i < root->nnodes; i++) {
		const struct ext4_block *node = ext4_block_find(fs->nodes, root->nodes[i]);
		struct tw_owner owner;
		bool owned = tw_owners_find(tw_view_owners(fs->view), root->nodes[i], 1, &owner) &&
			     owner.kind == TW_OWNER_NODE;
		if (node && node->ino == root->ino && !owned)
			ext4_block_drop(&fs->nodes, root->nodes[i]);
	}
}

static struct tw_error *keep_nodes(
	struct ext4 *fs, struct ext4_remap *remap, struct ext4_reader *reader)
{
	for (uint32_t i = 0; i < remap->map.nnodes; i++) {
		const uint8_t *data;
		struct tw_owner owner = {remap->map.nodes[i], 1, remap->ino, 0, TW_OWNER_NODE};
		TW_TRY(tw_owners_set(tw_view_owners(fs->view), &owner));
		TW_TRY(ext4_reader_block(reader, owner.block, &data));
		struct ext4_block *node = ext4_block_find(fs->nodes, owner.block);
		if (node && node->data == data)
			node->ino = remap->ino;
		else
			TW_TRY(ext4_block_store(
				&fs->nodes, owner.block, remap->ino, data, fs->geo.blocksize));
	}
	return NULL;
}

static struct tw_error *keep_root(struct ext4 *fs, struct ext4_remap *remap)
{
	struct ext4_root *root = ext4_root_find(fs, remap->ino);
	if (root) {
		forget_nodes(fs, root);
		root_drop(fs, root);
	}
	if (!remap->map.nnodes)
		return NULL;
	root = calloc(1, sizeof(*root));
	if (!root)
		return tw_error_nomem();
	root->ino = remap->ino;
	root->flags = remap->flags;
	memcpy(root->map, remap->root, sizeof(root->map));
	root->nnodes = remap->map.nnodes;
	root->nodes = remap->map.nodes;
	remap->map.nodes = NULL;
	remap->map.nnodes = 0;
	HASH_ADD(hh, fs->roots, ino, sizeof(root->ino), root);
	return NULL;
}

struct tw_error *ext4_remap_claim(
	struct ext4 *fs, struct ext4_remap *remap, struct ext4_reader *reader)
{
	struct tw_inode *inode = tw_view_inode(fs->view, remap->ino);
	struct middle m = differing(inode, remap, kind_changed(fs, remap));
	if (m.new_end > m.from)
		TW_TRY(tw_view_claim_extents(fs->view, remap->ino, remap->map.extents + m.from,
			m.new_end - m.from, ext4_data_kind(&fs->geo, remap->ino, remap->mode)));
	TW_TRY(keep_nodes(fs, remap, reader));
	TW_TRY(keep_root(fs, remap));
	if (!inode)
		return NULL;
	free(inode->extents);
	inode->extents = NULL;
	inode->nextents = 0;
	if (!remap->map.n)
		return NULL;
	/* The view keeps it: give back what the walk had in reserve. */
	inode->extents = realloc(remap->map.extents, remap->map.n * sizeof(*inode->extents));
	if (!inode->extents)
		return tw_error_nomem();
	inode->nextents = remap->map.n;
	remap->map.extents = NULL;
	remap->map.n = 0;
	return NULL;
}

/* Where a mapping stands at a logical block: what is there, up to where. */
struct stretch {
	const struct tw_extent *extents;
	uint32_t n, i;
};

static uint64_t at_block(struct stretch *s, uint64_t lblk, uint64_t *end)
{
	while (s->i < s->n && s->extents[s->i].lblk + (uint64_t)s->extents[s->i].count <= lblk)
		s->i++;
	if (s->i == s->n) {
		*end = UINT64_MAX;
		return 0;
	}
	const struct tw_extent *e = &s->extents[s->i];
	if (e->lblk > lblk) {
		*end = e->lblk;
		return 0;
	}
	*end = e->lblk + (uint64_t)e->count;
	return e->unwritten ? 0 : e->block + (lblk - e->lblk);
}

struct tw_error *ext4_remap_ranges(
	const struct ext4 *fs, const struct ext4_remap *remap, struct tw_change *change)
{
	const struct tw_inode *inode = tw_view_inode(fs->view, remap->ino);
	struct middle m = differing(inode, remap, false);
	struct stretch old = {inode ? inode->extents : NULL, m.old_end, m.from};
	struct stretch new = {remap->map.extents, m.new_end, m.from};
	uint64_t lblk = 0;
	for (;;) {
		uint64_t old_end, new_end;
		uint64_t was = at_block(&old, lblk, &old_end), is = at_block(&new, lblk, &new_end);
		uint64_t end = old_end < new_end ? old_end : new_end;
		if (end == UINT64_MAX)
			return NULL;
		if (was != is)
			TW_TRY(tw_changeset_range(change, lblk << fs->geo.blockbits,
				(end - lblk) << fs->geo.blockbits));
		lblk = end;
	}
}
