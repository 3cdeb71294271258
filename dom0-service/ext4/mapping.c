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

/* Devices, fifos, fast symlinks and inline data keep something else in i_block. */
static bool has_map(const struct ext4_remap *remap)
{
	if (remap->flags & EXT4_INLINE_DATA_FL)
		return false;
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
		remap->bad = true;
		return NULL;
	}
	return err;
}

static bool same_extent(const struct tw_extent *a, const struct tw_extent *b)
{
	return a->block == b->block && a->lblk == b->lblk && a->count == b->count &&
	       a->unwritten == b->unwritten;
}

bool ext4_same_extents(const struct tw_extent *a, uint32_t n, const struct tw_extent *b, uint32_t m)
{
	if (n != m)
		return false;
	for (; n--; a++, b++)
		if (!same_extent(a, b))
			return false;
	return true;
}

static struct tw_error *no_node(void *arg, uint64_t block, const uint8_t **out)
{
	(void)arg, (void)block, (void)out;
	return tw_error_create(TW_GAP, "not in the inode");
}

static bool same_inline(const struct ext4 *fs, const struct ext4_inode *now, uint32_t ino)
{
	uint64_t digest;
	bool was = tw_numtab_get(&fs->inlines, ino, &digest);
	if (!(now->flags & EXT4_INLINE_DATA_FL))
		return !was;
	return was && digest == ext4_inline_digest(now);
}

bool ext4_same_mapping(
	const struct ext4 *fs, const struct tw_inode *inode, const struct ext4_inode *now)
{
	const struct ext4_root *root = ext4_root_find(fs, inode->ino);
	struct ext4_remap remap = {.mode = now->attr.mode, .flags = now->flags};
	struct ext4_map map = {0};
	struct tw_extent one;
	uint32_t n, len;
	remap.fast_symlink = ext4_inode_fast_symlink(now);
	/* Without a journal, the number of blocks tells whether nodes and inode belong together. */
	if (root && !fs->journal && root->sectors != now->sectors)
		return false;
	if (root)
		return !((root->flags ^ now->flags) & (EXT4_EXTENTS_FL | EXT4_INLINE_DATA_FL)) &&
		       !memcmp(root->map, now->map, sizeof(root->map));
	const struct tw_extent *extents = tw_inode_extents(inode, &one, &n);
	const char *target = tw_inode_target(inode, &len);
	if (remap.fast_symlink)
		return !n && target && len == now->attr.size && !memcmp(target, now->map, len);
	if (!has_map(&remap))
		return !n && same_inline(fs, now, inode->ino);
	if (!same_inline(fs, now, inode->ino))
		return false;
	struct tw_error *err =
		ext4_map_walk(&fs->geo, inode->ino, now->flags, now->map, no_node, NULL, &map);
	bool same = !err && ext4_same_extents(extents, n, map.extents, map.n);
	tw_error_destroy(err);
	ext4_map_deinit(&map);
	return same;
}

/* The extents that the view has of an inode. */
struct extents {
	const struct tw_extent *at;
	uint32_t n;
	struct tw_extent one;
};

static void extents_of(const struct ext4 *fs, uint32_t ino, struct extents *out)
{
	const struct tw_inode *inode = tw_view_inode(fs->view, ino);
	out->at = NULL;
	out->n = 0;
	if (inode)
		out->at = tw_inode_extents(inode, &out->one, &out->n);
}

/* The stretch of extents in which the old and the new mapping differ. */
struct middle {
	uint32_t from, old_end, new_end;
	uint32_t shared; /* blocks at the start of the first one that both have: it only grew or
			    shrank */
};

static struct middle differing(
	const struct extents *was, const struct tw_extent *new, uint32_t n, bool replaced)
{
	struct middle m = {0, was->n, n, 0};
	if (replaced)
		return m;
	const struct tw_extent *old = was->at;
	while (m.from < m.old_end && m.from < m.new_end && same_extent(&old[m.from], &new[m.from]))
		m.from++;
	while (m.old_end > m.from && m.new_end > m.from &&
		same_extent(&old[m.old_end - 1], &new[m.new_end - 1])) {
		m.old_end--;
		m.new_end--;
	}
	if (m.from < m.old_end && m.from < m.new_end) {
		const struct tw_extent *x = &old[m.from], *y = &new[m.from];
		if (x->block == y->block && x->lblk == y->lblk && x->unwritten == y->unwritten)
			m.shared = x->count < y->count ? x->count : y->count;
	}
	return m;
}

/* What is left of an extent without its first blocks. */
static struct tw_extent rest_of(const struct tw_extent *e, uint32_t blocks)
{
	return (struct tw_extent){
		.block = e->block + blocks,
		.lblk = e->lblk + blocks,
		.count = (e->count - blocks) & TW_EXTENT_MAX,
		.unwritten = e->unwritten,
	};
}

static bool kind_changed(const struct ext4 *fs, const struct ext4_remap *remap)
{
	return ext4_data_kind(&fs->geo, remap->ino, remap->old_mode) !=
	       ext4_data_kind(&fs->geo, remap->ino, remap->mode);
}

/* Takes the old extents in the middle from the inode. */
static struct tw_error *release_middle(struct ext4 *fs, struct ext4_remap *remap,
	const struct tw_extent *old, const struct middle *m)
{
	enum tw_owner_kind kind = ext4_data_kind(&fs->geo, remap->ino, remap->old_mode);
	if (m->old_end == m->from)
		return NULL;
	struct tw_extent first = rest_of(&old[m->from], m->shared);
	remap->released = first.count || m->old_end - m->from > 1;
	if (first.count)
		TW_TRY(tw_view_release_extents(fs->view, remap->ino, &first, 1, kind));
	return tw_view_release_extents(
		fs->view, remap->ino, old + m->from + 1, m->old_end - m->from - 1, kind);
}

static struct tw_error *claim_middle(
	struct ext4 *fs, const struct ext4_remap *remap, const struct middle *m)
{
	enum tw_owner_kind kind = ext4_data_kind(&fs->geo, remap->ino, remap->mode);
	const struct tw_extent *new = remap->map.extents;
	if (m->new_end == m->from)
		return NULL;
	struct tw_extent first = rest_of(&new[m->from], m->shared);
	if (first.count)
		TW_TRY(tw_view_claim_extents(fs->view, remap->ino, &first, 1, kind));
	return tw_view_claim_extents(
		fs->view, remap->ino, new + m->from + 1, m->new_end - m->from - 1, kind);
}

/* The same for the nodes of the old mapping. */
static struct tw_error *release_nodes(struct ext4 *fs, const struct ext4_remap *remap)
{
	const struct ext4_root *root = remap->extents_only ? NULL : ext4_root_find(fs, remap->ino);
	for (uint32_t i = 0; root && i < root->nnodes; i++)
		TW_TRY(tw_owners_clear(
			tw_view_owners(fs->view), root->nodes[i], 1, remap->ino, TW_OWNER_NODE));
	return NULL;
}

/* Nodes that the mapping has no more are forgotten, unless another inode has taken the block. */
static struct tw_error *forget_nodes(struct ext4 *fs, struct ext4_root *root)
{
	for (uint32_t i = 0; i < root->nnodes; i++) {
		const struct ext4_block *node = ext4_block_find(fs->nodes, root->nodes[i]);
		struct tw_owner owner;
		bool owned = tw_owners_find(tw_view_owners(fs->view), root->nodes[i], 1, &owner) &&
			     owner.kind == TW_OWNER_NODE;
		if (!node || node->ino != root->ino || owned)
			continue;
		if (!fs->journal)
			TW_TRY(ext4_unjournaled_keep(fs, node->block, node->data));
		ext4_block_drop(&fs->nodes, root->nodes[i]);
	}
	return NULL;
}

static struct tw_error *keep_nodes(
	struct ext4 *fs, struct ext4_remap *remap, struct ext4_reader *reader)
{
	for (uint32_t i = 0; i < remap->map.nnodes; i++) {
		const uint8_t *data;
		uint64_t block = remap->map.nodes[i];
		TW_TRY(ext4_reader_block(reader, block, &data));
		struct ext4_block *node = ext4_block_find(fs->nodes, block);
		if (node && node->data == data)
			node->ino = remap->ino;
		else
			TW_TRY(ext4_block_store(
				&fs->nodes, block, remap->ino, data, fs->geo.blocksize));
	}
	return NULL;
}

static struct tw_error *keep_root(struct ext4 *fs, struct ext4_remap *remap)
{
	struct ext4_root *root = ext4_root_find(fs, remap->ino);
	if (root) {
		TW_TRY(forget_nodes(fs, root));
		root_drop(fs, root);
	}
	/* A bad one is kept, so that it is told of once. */
	if (!remap->map.nnodes && !remap->bad)
		return NULL;
	root = calloc(1, sizeof(*root));
	if (!root)
		return tw_error_nomem();
	root->ino = remap->ino;
	root->flags = remap->flags;
	root->sectors = remap->sectors;
	memcpy(root->map, remap->root, sizeof(root->map));
	root->nnodes = remap->map.nnodes;
	root->nodes = remap->map.nodes;
	remap->map.nodes = NULL;
	remap->map.nnodes = 0;
	HASH_ADD(hh, fs->roots, ino, sizeof(root->ino), root);
	return NULL;
}

static struct tw_error *claim_node(struct ext4 *fs, uint32_t ino, uint64_t block)
{
	struct tw_owner owner = {block, 1, ino, 0, TW_OWNER_NODE};
	return tw_owners_set(tw_view_owners(fs->view), &owner);
}

struct tw_error *ext4_remap_move(
	struct ext4 *fs, struct ext4_remap *remap, struct ext4_reader *reader)
{
	struct extents was;
	extents_of(fs, remap->ino, &was);
	struct middle m =
		differing(&was, remap->map.extents, remap->map.n, kind_changed(fs, remap));
	TW_TRY(release_middle(fs, remap, was.at, &m));
	TW_TRY(release_nodes(fs, remap));
	TW_TRY(claim_middle(fs, remap, &m));
	for (uint32_t i = 0; !remap->extents_only && i < remap->map.nnodes; i++)
		TW_TRY(claim_node(fs, remap->ino, remap->map.nodes[i]));
	return ext4_remap_keep(fs, remap, reader);
}

struct tw_error *ext4_claim_nodes(struct ext4 *fs)
{
	for (const struct ext4_root *root = fs->roots; root; root = root->hh.next)
		for (uint32_t i = 0; i < root->nnodes; i++)
			TW_TRY(claim_node(fs, root->ino, root->nodes[i]));
	return NULL;
}

struct tw_error *ext4_remap_keep(
	struct ext4 *fs, struct ext4_remap *remap, struct ext4_reader *reader)
{
	struct tw_inode *inode = tw_view_inode(fs->view, remap->ino);
	if (!remap->extents_only) {
		TW_TRY(keep_nodes(fs, remap, reader));
		TW_TRY(keep_root(fs, remap));
	}
	if (remap->mode && remap->flags & EXT4_INLINE_DATA_FL)
		TW_TRY(tw_numtab_set(&fs->inlines, remap->ino, remap->inlined));
	else
		tw_numtab_drop(&fs->inlines, remap->ino);
	return inode ? tw_inode_set_extents(inode, remap->map.extents, remap->map.n) : NULL;
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

struct tw_error *ext4_extents_ranges(const struct ext4 *fs, uint32_t ino,
	const struct tw_extent *extents, uint32_t n, struct tw_change *change)
{
	struct extents was;
	extents_of(fs, ino, &was);
	struct middle m = differing(&was, extents, n, false);
	struct stretch old = {was.at, m.old_end, m.from};
	struct stretch new = {extents, m.new_end, m.from};
	uint64_t lblk = 0;
	for (;;) {
		uint64_t old_end, new_end;
		uint64_t from = at_block(&old, lblk, &old_end);
		uint64_t to = at_block(&new, lblk, &new_end);
		uint64_t end = old_end < new_end ? old_end : new_end;
		if (end == UINT64_MAX)
			return NULL;
		if (from != to)
			TW_TRY(tw_changeset_range(change, lblk << fs->geo.blockbits,
				(end - lblk) << fs->geo.blockbits));
		lblk = end;
	}
}

struct tw_error *ext4_inline_ranges(const struct ext4 *fs, const struct ext4_remap *remap,
	uint64_t size, struct tw_change *change)
{
	uint64_t digest, most;
	bool was = tw_numtab_get(&fs->inlines, remap->ino, &digest);
	bool is = remap->flags & EXT4_INLINE_DATA_FL;
	if (!(was || is) || (was && is && digest == remap->inlined))
		return NULL;
	/* A content of so few bytes is told of as a whole, as a block would be. */
	most = was ? change->old.size : 0;
	if (is && size > most)
		most = size;
	return tw_changeset_range(change, 0, most);
}
