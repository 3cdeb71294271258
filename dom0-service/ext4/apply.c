/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Applies a set of metadata blocks that belong together (a transaction) to the view: first the
 * inode tables, which say what the other blocks are, then mappings, then directories; then the
 * events.
 */
#include "ext4/ext4.h"

#include "base/mem.h"

#include <stdlib.h>
#include <sys/stat.h>

struct work {
	struct ext4 *fs;
	const struct ext4_blockset *blocks;
	struct ext4_reader reader;
	struct ext4_remap *remaps;
	size_t nremaps, capremaps;
	struct ext4_block *remapped; /* by inode number: which have one */
	uint32_t *touched;           /* inodes whose slot changed: candidates to be dropped */
	size_t ntouched, captouched;
};

static struct tw_error *add_remap(struct work *w, uint32_t ino, struct ext4_remap **out)
{
	struct ext4_block *mark;
	TW_TRY(ext4_block_get(&w->remapped, ino, &mark));
	if (!TW_GROW(w->remaps, w->nremaps, w->capremaps))
		return tw_error_nomem();
	*out = &w->remaps[w->nremaps++];
	memset(*out, 0, sizeof(**out));
	(*out)->ino = ino;
	return NULL;
}

static struct tw_error *add_touched(struct work *w, uint32_t ino)
{
	if (!TW_GROW(w->touched, w->ntouched, w->captouched))
		return tw_error_nomem();
	w->touched[w->ntouched++] = ino;
	return NULL;
}

static struct tw_error *take_inode(
	struct work *w, uint32_t ino, const struct ext4_inode *now, bool same_mapping, bool tracked)
{
	struct ext4 *fs = w->fs;
	struct tw_change *change;
	struct tw_inode *inode;
	TW_TRY(tw_changeset_inode(fs->set, ino, &change));
	TW_TRY(tw_view_inode_add(fs->view, ino, &inode));
	TW_TRY(add_touched(w, ino));
	bool replaced = tw_change_identity(change, &now->attr);
	uint16_t old_mode = tw_view_mode(fs->view, inode);
	TW_TRY(tw_view_set_attr(fs->view, inode, &now->attr));
	if (!S_ISLNK(now->attr.mode))
		TW_TRY(tw_inode_set_target(inode, NULL, 0));
	if (tracked && !replaced && same_mapping &&
		(old_mode & S_IFMT) == (now->attr.mode & S_IFMT))
		return NULL;
	struct ext4_remap *remap;
	TW_TRY(add_remap(w, ino, &remap));
	remap->flags = now->flags;
	remap->sectors = now->sectors;
	remap->old_mode = old_mode;
	remap->mode = tracked ? now->attr.mode : 0;
	remap->fast_symlink = ext4_inode_fast_symlink(now);
	memcpy(remap->root, now->map, sizeof(remap->root));
	remap->rest = now->rest;
	if (!(remap->flags & EXT4_INLINE_DATA_FL))
		return NULL;
	remap->inlined = ext4_inline_digest(now);
	return S_ISREG(remap->mode) ? ext4_inline_keep(fs, ino, now) : NULL;
}

/* The inode that a remap was made from. */
static struct ext4_inode inode_of(const struct work *w, const struct ext4_remap *remap)
{
	const struct tw_inode *inode = tw_view_inode(w->fs->view, remap->ino);
	struct ext4_inode as = {.flags = remap->flags, .rest = remap->rest};
	if (inode)
		as.attr = tw_view_attr(w->fs->view, inode);
	memcpy(as.map, remap->root, sizeof(as.map));
	return as;
}

/* True when the slot surely says what the view knows. */
static bool known_slot(const struct ext4 *fs, const struct tw_inode *inode, struct tw_span raw)
{
	struct tw_attr attr = tw_view_attr(fs->view, inode);
	struct tw_extent one;
	struct tw_span map;
	uint32_t n;
	if (!ext4_inode_is(raw, &attr, &map) || ext4_root_find(fs, inode->ino))
		return false;
	const struct tw_extent *extents = tw_inode_extents(inode, &one, &n);
	return ext4_root_is(map, extents, n);
}

static struct tw_error *apply_slot(struct work *w, uint32_t ino, struct tw_span raw)
{
	const struct tw_inode *inode = tw_view_inode(w->fs->view, ino);
	struct ext4_inode now;
	if (inode && known_slot(w->fs, inode, raw))
		return NULL;
	if (ext4_block_find(w->fs->held, ino))
		return NULL;
	ext4_inode_decode(raw, &now);
	bool tracked = ext4_inode_tracked(&w->fs->geo, &now);
	struct tw_attr was = inode ? tw_view_attr(w->fs->view, inode) : (struct tw_attr){0};
	if (!tracked && !was.mode)
		return NULL;
	if (tracked)
		TW_TRY(ext4_attrs_xattrs(w->fs, ino, &now, &w->reader));
	else
		TW_TRY(ext4_attrs_has_block(w->fs, ino, 0));
	if (!tracked)
		now.attr = (struct tw_attr){0};
	bool same_mapping = tracked && was.mode && ext4_same_mapping(w->fs, inode, &now);
	if (same_mapping && ext4_same_attr(&was, &now.attr))
		return NULL;
	return take_inode(w, ino, &now, same_mapping, tracked);
}

/* The journal's own inode never changes, unless the journal is made anew (tune2fs, e2fsck). */
static struct tw_error *check_journal(struct work *w, struct tw_span raw)
{
	const struct tw_inode *journal = tw_view_inode(w->fs->view, w->fs->geo.journal_ino);
	struct ext4_inode now;
	ext4_inode_decode(raw, &now);
	if (journal && ext4_same_mapping(w->fs, journal, &now))
		return NULL;
	return tw_error_create(TW_GAP, "the journal was made anew");
}

static struct tw_error *apply_table(struct work *w, uint64_t block, const uint8_t *data)
{
	const struct ext4_geometry *geo = &w->fs->geo;
	uint32_t ino, n = ext4_geometry_itable(geo, block, &ino);
	for (uint32_t i = 0; i < n; i++, ino++) {
		struct tw_span raw = tw_span(data + (size_t)i * geo->inode_size, geo->inode_size);
		if (ino == geo->journal_ino)
			TW_TRY(check_journal(w, raw));
		if ((ino < geo->first_ino && ino != EXT4_ROOT_INO) || ino > geo->ninodes)
			continue;
		TW_TRY(apply_slot(w, ino, raw));
	}
	return NULL;
}

/* A node changed while its inode did not have to (unwritten extents that became written). */
static struct tw_error *apply_node(struct work *w, uint32_t ino)
{
	const struct ext4_root *root = ext4_root_find(w->fs, ino);
	const struct tw_inode *inode = tw_view_inode(w->fs->view, ino);
	struct ext4_remap *remap;
	struct tw_change *change;
	if (!root || !inode || ext4_block_find(w->remapped, ino) ||
		ext4_block_find(w->fs->held, ino))
		return NULL;
	TW_TRY(tw_changeset_inode(w->fs->set, ino, &change));
	TW_TRY(add_remap(w, ino, &remap));
	remap->flags = root->flags;
	remap->sectors = root->sectors;
	remap->old_mode = remap->mode = tw_view_mode(w->fs->view, inode);
	memcpy(remap->root, root->map, sizeof(remap->root));
	return NULL;
}

/* data=journal: file data in the log. */
static struct tw_error *apply_data(struct work *w, const struct tw_owner *owner, uint64_t block)
{
	struct tw_change *change;
	TW_TRY(tw_changeset_inode(w->fs->set, owner->ino, &change));
	uint64_t lblk = owner->lblk + (block - owner->block);
	return tw_changeset_range(change, lblk << w->fs->geo.blockbits, w->fs->geo.blocksize);
}

/* What may turn out to be a file's content, with data=journal. */
static struct tw_error *hand_on_content(struct work *w)
{
	const struct tw_fs_env *env = &w->fs->env;
	const struct ext4_blockset_entry *b = NULL;
	struct tw_owner owner;
	while (env->logged && (b = ext4_blockset_next(w->blocks, b)))
		if (!tw_owners_find(tw_view_owners(w->fs->view), b->block, 1, &owner) ||
			owner.kind == TW_OWNER_DATA || owner.kind == TW_OWNER_UNWRITTEN)
			TW_TRY(env->logged(env->arg, b->block << w->fs->geo.blockbits, b->data,
				w->fs->geo.blocksize));
	return NULL;
}

/* Fast commits moved these mappings by what they said; now it is the nodes that count. */
static struct tw_error *apply_fast_mapped(struct work *w)
{
	for (const struct ext4_block *b = w->fs->fast_mapped; b; b = b->hh.next)
		TW_TRY(apply_node(w, (uint32_t)b->block));
	return NULL;
}

static struct tw_error *apply_inodes(struct work *w)
{
	const struct ext4_blockset_entry *b = NULL;
	struct tw_owners *owners = tw_view_owners(w->fs->view);
	struct tw_owner owner;
	while ((b = ext4_blockset_next(w->blocks, b)))
		if (tw_owners_find(owners, b->block, 1, &owner) && owner.kind == TW_OWNER_TABLE)
			TW_TRY(apply_table(w, b->block, b->data));
	while ((b = ext4_blockset_next(w->blocks, b))) {
		if (!tw_owners_find(owners, b->block, 1, &owner))
			continue;
		if (owner.kind == TW_OWNER_NODE)
			TW_TRY(apply_node(w, owner.ino));
		else if (owner.kind == TW_OWNER_DATA)
			TW_TRY(apply_data(w, &owner, b->block));
	}
	return w->fs->fast_ends ? apply_fast_mapped(w) : NULL;
}

static struct tw_error *apply_mappings(struct work *w)
{
	struct ext4 *fs = w->fs;
	for (size_t i = 0; i < w->nremaps; i++) {
		struct ext4_remap *remap = &w->remaps[i];
		struct tw_change *change = tw_changeset_find(fs->set, remap->ino);
		TW_TRY(ext4_remap_walk(fs, remap, &w->reader));
		if (!S_ISREG(remap->mode) || !change)
			continue;
		TW_TRY(ext4_extents_ranges(
			fs, remap->ino, remap->map.extents, remap->map.n, change));
		TW_TRY(ext4_inline_ranges(fs, remap, inode_of(w, remap).attr.size, change));
	}
	for (size_t i = 0; i < w->nremaps; i++)
		TW_TRY(ext4_remap_move(fs, &w->remaps[i], &w->reader));
	return NULL;
}

/* Slow symlinks have their target in a block. Needs the new mapping. */
static struct tw_error *apply_targets(struct work *w)
{
	for (size_t i = 0; i < w->nremaps; i++) {
		const struct ext4_remap *remap = &w->remaps[i];
		if (!S_ISLNK(remap->mode))
			continue;
		struct ext4_inode as = inode_of(w, remap);
		TW_TRY(ext4_attrs_target(w->fs, &as, remap->ino, &w->reader));
	}
	return NULL;
}

/* Blocks of a new directory come with the transaction, or, offline, before it. */
static struct tw_error *load_new_dir(struct work *w, const struct tw_inode *dir)
{
	struct tw_extent one;
	uint32_t n;
	const struct tw_extent *e = tw_inode_extents(dir, &one, &n);
	for (; n--; e++) {
		for (uint32_t k = 0; k < e->count; k++) {
			uint64_t block = e->block + k;
			const uint8_t *data;
			if (ext4_blockset_find(w->blocks, block))
				continue;
			TW_TRY(ext4_reader_block(&w->reader, block, &data));
			TW_TRY(ext4_dirs_diff(w->fs, dir->ino, block, data));
		}
	}
	return NULL;
}

static struct tw_error *apply_directories(struct work *w)
{
	const struct ext4_blockset_entry *b = NULL;
	struct tw_owners *owners = tw_view_owners(w->fs->view);
	struct tw_owner owner;
	for (size_t i = 0; i < w->nremaps; i++) {
		const struct ext4_remap *remap = &w->remaps[i];
		const struct tw_inode *dir = tw_view_inode(w->fs->view, remap->ino);
		/* A directory that only grew is not gone through: it may be a large one. */
		if (dir &&
			(remap->released || tw_view_dirblock(w->fs->view, dir, EXT4_INLINE_BLOCK)))
			TW_TRY(ext4_dirs_lost(w->fs, dir->ino));
		if (dir && S_ISDIR(remap->mode) && !S_ISDIR(remap->old_mode))
			TW_TRY(load_new_dir(w, dir));
		if (dir && S_ISDIR(remap->mode) && remap->flags & EXT4_INLINE_DATA_FL) {
			struct ext4_inode as = inode_of(w, remap);
			TW_TRY(ext4_dirs_diff_inline(w->fs, dir->ino, &as));
		}
	}
	while ((b = ext4_blockset_next(w->blocks, b)))
		if (tw_owners_find(owners, b->block, 1, &owner) && owner.kind == TW_OWNER_DIR)
			TW_TRY(ext4_dirs_diff(w->fs, owner.ino, b->block, b->data));
	return w->fs->fast_ends ? ext4_fast_end(w->fs) : NULL;
}

static void drop_gone(struct work *w)
{
	for (size_t i = 0; i < w->ntouched; i++) {
		const struct tw_inode *inode = tw_view_inode(w->fs->view, w->touched[i]);
		if (inode && !tw_view_mode(w->fs->view, inode) && !tw_inode_named(inode) &&
			!tw_inode_nblocks(inode))
			tw_view_inode_drop(w->fs->view, w->touched[i]);
	}
}

static void deinit(struct work *w)
{
	ext4_reader_deinit(&w->reader);
	for (size_t i = 0; i < w->nremaps; i++)
		ext4_map_deinit(&w->remaps[i].map);
	ext4_block_clear(&w->remapped);
	free(w->remaps);
	free(w->touched);
}

struct tw_error *ext4_apply(
	struct ext4 *fs, const struct ext4_blockset *blocks, const struct tw_commit *commit)
{
	struct work w = {
		.fs = fs,
		.blocks = blocks,
		.reader = {.geo = &fs->geo,
			.txn = blocks,
			.early = &fs->early,
			.nodes = &fs->nodes},
	};
	struct tw_error *err = hand_on_content(&w);
	if (!err)
		err = apply_inodes(&w);
	if (!err)
		err = apply_mappings(&w);
	if (!err)
		err = apply_targets(&w);
	if (!err)
		err = apply_directories(&w);
	fs->data_waits = fs->flushed = fs->fast_ends = false;
	if (!err)
		err = tw_changeset_emit(fs->set, commit);
	if (!err)
		drop_gone(&w);
	else
		tw_changeset_abandon(fs->set);
	deinit(&w);
	ext4_block_clear(&fs->inline_now);
	ext4_attrs_sweep(fs);
	return err;
}
