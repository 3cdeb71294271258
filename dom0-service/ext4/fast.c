/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Applies fast commits to the view, each as a transaction of its own. They say which names, inodes
 * and ranges of files changed, not in which blocks: names stand at a block that no directory has
 * until the commit that follows brings the directory's blocks, and mappings move without their
 * nodes. What a directory itself becomes (its times, size and links) comes with that commit, too.
 */
#include "ext4/ext4.h"

#include "base/mem.h"

#include <stdlib.h>
#include <sys/stat.h>

/* More ranges of a file than this, and not in order, are left to the commit. */
#define MAX_UNORDERED 4096

/* A stretch of a file that is another one now; block 0: a hole. */
struct stretch {
	uint32_t lblk;
	uint64_t end, block;
	bool unwritten;
};

/* An inode that the fast commit names. */
struct fast_inode {
	uint32_t ino;
	int32_t links;                /* names that came, less those that went */
	const struct ext4_fc_op *raw; /* the last INODE */
	struct stretch *ranges;       /* by lblk */
	size_t nranges, capranges;
	bool remapped;
	struct ext4_remap remap;
	UT_hash_handle hh;
};

/* A name, and whether it is there in the end. Key: from dir on. */
struct fast_name {
	bool there;
	uint8_t len;
	UT_hash_handle hh;
	uint8_t key[8 + 255];
};

struct fast_work {
	struct ext4 *fs;
	struct fast_inode *inodes;
	struct fast_name *names;
	bool refused; /* the commit that follows has to do */
};

static struct tw_error *inode_get(struct fast_work *w, uint32_t ino, struct fast_inode **out)
{
	struct fast_inode *inode;
	HASH_FIND(hh, w->inodes, &ino, sizeof(ino), inode);
	if (!inode) {
		inode = calloc(1, sizeof(*inode));
		if (!inode)
			return tw_error_nomem();
		inode->ino = ino;
		HASH_ADD(hh, w->inodes, ino, sizeof(inode->ino), inode);
	}
	*out = inode;
	return NULL;
}

static struct tw_error *take_name(struct fast_work *w, const struct ext4_fc_op *op)
{
	uint8_t key[8 + 255];
	struct fast_name *name;
	unsigned len = 8 + (unsigned)op->bytes.len;
	memcpy(key, &op->dir, 4);
	memcpy(key + 4, &op->ino, 4);
	memcpy(key + 8, op->bytes.data, op->bytes.len);
	HASH_FIND(hh, w->names, key, len, name);
	if (!name) {
		name = calloc(1, sizeof(*name));
		if (!name)
			return tw_error_nomem();
		memcpy(name->key, key, len);
		name->len = (uint8_t)op->bytes.len;
		HASH_ADD_KEYPTR(hh, w->names, name->key, len, name);
	}
	name->there = op->tag != EXT4_FC_UNLINK;
	return NULL;
}

static void remove_ranges(struct fast_inode *inode, size_t from, size_t to)
{
	if (from == to)
		return;
	memmove(inode->ranges + from, inode->ranges + to,
		(inode->nranges - to) * sizeof(*inode->ranges));
	inode->nranges -= to - from;
}

static struct tw_error *insert_range(struct fast_inode *inode, size_t at, struct stretch s)
{
	if (!TW_GROW(inode->ranges, inode->nranges, inode->capranges))
		return tw_error_nomem();
	memmove(inode->ranges + at + 1, inode->ranges + at,
		(inode->nranges - at) * sizeof(*inode->ranges));
	inode->ranges[at] = s;
	inode->nranges++;
	return NULL;
}

/* The part of a stretch from a logical block on. */
static struct stretch tail_of(struct stretch s, uint64_t from)
{
	if (s.block)
		s.block += from - s.lblk;
	s.lblk = (uint32_t)from;
	return s;
}

/* The later range counts where two overlap. */
static struct tw_error *add_range(struct fast_work *w, struct fast_inode *inode, struct stretch s)
{
	size_t i = inode->nranges;
	if (i && inode->ranges[i - 1].end > s.lblk && i > MAX_UNORDERED) {
		w->refused = true;
		return NULL;
	}
	while (i && inode->ranges[i - 1].end > s.lblk)
		i--;
	if (i < inode->nranges && inode->ranges[i].lblk < s.lblk) {
		struct stretch before = inode->ranges[i];
		if (before.end > s.end)
			TW_TRY(insert_range(inode, i + 1, tail_of(before, s.end)));
		inode->ranges[i++].end = s.lblk;
	}
	size_t end = i;
	while (end < inode->nranges && inode->ranges[end].end <= s.end)
		end++;
	if (end < inode->nranges && inode->ranges[end].lblk < s.end)
		inode->ranges[end] = tail_of(inode->ranges[end], s.end);
	remove_ranges(inode, i, end);
	return insert_range(inode, i, s);
}

static struct tw_error *take_range(struct fast_work *w, const struct ext4_fc_op *op)
{
	const struct ext4_geometry *geo = &w->fs->geo;
	struct fast_inode *inode;
	struct stretch s = {op->lblk, op->lblk + (uint64_t)op->count, op->block, op->unwritten};
	bool add = op->tag == EXT4_FC_ADD_RANGE;
	if (add && (op->block < geo->first_data_block || op->block >= geo->nblocks ||
			   op->count > geo->nblocks - op->block || s.end > UINT32_MAX)) {
		w->refused = true;
		return NULL;
	}
	if (!op->count)
		return NULL;
	TW_TRY(inode_get(w, op->ino, &inode));
	return add_range(w, inode, s);
}

/* True when an inode on disk is not the one that the view has. */
static bool is_another(const struct tw_attr *was, const struct tw_attr *now)
{
	return !was->mode || was->generation != now->generation ||
	       (was->mode & S_IFMT) != (now->mode & S_IFMT);
}

static struct tw_attr attr_of(const struct ext4 *fs, uint32_t ino)
{
	const struct tw_inode *inode = tw_view_inode(fs->view, ino);
	return inode ? tw_view_attr(fs->view, inode) : (struct tw_attr){0};
}

static struct tw_error *take_raw(struct fast_work *w, const struct ext4_fc_op *op)
{
	struct ext4_inode now, before;
	struct fast_inode *inode;
	struct tw_attr was = attr_of(w->fs, op->ino);
	TW_TRY(inode_get(w, op->ino, &inode));
	ext4_inode_decode(op->bytes, &now);
	if (inode->raw) {
		ext4_inode_decode(inode->raw->bytes, &before);
		was = before.attr;
	}
	/* The ranges before were the old one's. */
	if (was.mode && is_another(&was, &now.attr))
		inode->nranges = 0;
	inode->raw = op;
	return NULL;
}

static bool valid_ino(const struct ext4 *fs, uint32_t ino)
{
	return ino == EXT4_ROOT_INO || (ino >= fs->geo.first_ino && ino <= fs->geo.ninodes);
}

static bool valid_name(struct tw_span name)
{
	bool dots =
		name.data[0] == '.' && (name.len == 1 || (name.len == 2 && name.data[1] == '.'));
	return !dots && !memchr(name.data, '/', name.len) && !memchr(name.data, '\0', name.len);
}

static struct tw_error *take_op(struct fast_work *w, const struct ext4_fc_op *op)
{
	const struct ext4 *fs = w->fs;
	if (!valid_ino(fs, op->ino) || op->ino == fs->geo.journal_ino)
		return NULL;
	switch (op->tag) {
	case EXT4_FC_ADD_RANGE:
	case EXT4_FC_DEL_RANGE:
		return take_range(w, op);
	case EXT4_FC_INODE:
		return take_raw(w, op);
	default:
		if (!valid_ino(fs, op->dir) || !valid_name(op->bytes))
			return NULL;
		return take_name(w, op);
	}
}

/* The target of a long symlink lies in a block that only the commit brings. Inline data has to be
 * there as a whole. */
static bool needs_more(const struct fast_work *w, const struct fast_inode *inode)
{
	struct ext4_inode now;
	struct tw_attr was = attr_of(w->fs, inode->ino);
	if (!inode->raw)
		return false;
	ext4_inode_decode(inode->raw->bytes, &now);
	if (now.flags & EXT4_INLINE_DATA_FL)
		return inode->raw->bytes.len != w->fs->geo.inode_size;
	return S_ISLNK(now.attr.mode) && !ext4_inode_fast_symlink(&now) &&
	       is_another(&was, &now.attr);
}

static struct tw_error *add_extent(struct ext4_map *map, struct tw_extent e)
{
	struct tw_extent *last = map->n ? &map->extents[map->n - 1] : NULL;
	if (!e.count)
		return NULL;
	if (last && last->lblk + last->count == e.lblk && last->block + last->count == e.block &&
		last->unwritten == e.unwritten &&
		(uint64_t)last->count + e.count <= TW_EXTENT_MAX) {
		last->count += e.count;
		return NULL;
	}
	if (!TW_GROW(map->extents, map->n, map->cap))
		return tw_error_nomem();
	map->extents[map->n++] = e;
	return NULL;
}

/* Where a sweep over the extents of the view stands. */
struct sweep {
	const struct tw_extent *at;
	uint32_t n;
	uint64_t from; /* logical block */
};

/* Takes over what the view has up to a logical block. */
static struct tw_error *keep_extents(struct sweep *old, uint64_t until, struct ext4_map *map)
{
	for (; old->n && old->at->lblk < until; old->at++, old->n--) {
		uint64_t end = old->at->lblk + (uint64_t)old->at->count;
		uint64_t from = old->at->lblk > old->from ? old->at->lblk : old->from;
		uint64_t to = end < until ? end : until;
		struct tw_extent part = *old->at;
		part.block += from - part.lblk;
		part.lblk = (uint32_t)from;
		part.count = to > from ? (uint32_t)(to - from) & TW_EXTENT_MAX : 0;
		TW_TRY(add_extent(map, part));
		if (end > until)
			return NULL;
	}
	return NULL;
}

/* The mapping that the view has, with the ranges laid over it. */
static struct tw_error *merge(
	const struct ext4 *fs, const struct fast_inode *f, bool another, struct ext4_map *map)
{
	const struct tw_inode *inode = tw_view_inode(fs->view, f->ino);
	struct tw_extent one;
	struct sweep old = {0};
	if (inode && !another)
		old.at = tw_inode_extents(inode, &one, &old.n);
	for (size_t i = 0; i < f->nranges; i++) {
		const struct stretch *s = &f->ranges[i];
		TW_TRY(keep_extents(&old, s->lblk, map));
		struct tw_extent new = {
			.block = s->block, .lblk = s->lblk, .unwritten = s->unwritten};
		new.count = (uint32_t)(s->end - s->lblk) & TW_EXTENT_MAX;
		if (s->block)
			TW_TRY(add_extent(map, new));
		old.from = s->end;
	}
	return keep_extents(&old, UINT64_MAX, map);
}

/* What the inode is now. Times, size and links are in the INODE; a file without one lost a name. */
static struct tw_attr attr_now(const struct ext4 *fs, const struct fast_inode *f,
	const struct tw_attr *was, struct ext4_inode *raw)
{
	struct tw_attr now = *was;
	if (f->raw) {
		ext4_inode_decode(f->raw->bytes, raw);
		if (!ext4_inode_tracked(&fs->geo, raw))
			return (struct tw_attr){0};
		now = raw->attr;
		/* Nobody sets extended attributes in a fast commit. */
		now.xattrs = is_another(was, &now) ? 0 : was->xattrs;
	} else if (!S_ISDIR(was->mode)) {
		int64_t links = (int64_t)was->nlink + f->links;
		now.nlink = links < 0 ? 0 : (uint32_t)links;
	}
	return now;
}

/* The mapping of a file, or what it has in place of one. */
static struct tw_error *move_content(
	struct ext4 *fs, struct fast_inode *f, bool another, struct tw_change *change)
{
	struct ext4_remap *remap = &f->remap;
	if (!S_ISREG(remap->mode))
		return NULL;
	if (!(remap->flags & EXT4_INLINE_DATA_FL))
		TW_TRY(merge(fs, f, another, &remap->map));
	TW_TRY(ext4_extents_ranges(fs, f->ino, remap->map.extents, remap->map.n, change));
	return ext4_inline_ranges(fs, remap, attr_of(fs, f->ino).size, change);
}

static struct tw_error *mark(struct ext4_block **table, uint64_t number)
{
	struct ext4_block *mark;
	return ext4_block_get(table, number, &mark);
}

/* Where the view becomes ahead of the last commit by this inode. */
static struct tw_error *mark_inode(struct ext4 *fs, const struct fast_inode *f,
	const struct tw_attr *was, const struct tw_attr *now)
{
	bool inlined = (was->flags | now->flags) & EXT4_INLINE_DATA_FL;
	if (ext4_same_attr(was, now) && !f->nranges && !inlined)
		return NULL;
	if (f->nranges && ext4_root_find(fs, f->ino))
		TW_TRY(mark(&fs->fast_mapped, f->ino));
	return mark(&fs->fast_blocks, ext4_geometry_slot(&fs->geo, f->ino));
}

static struct tw_error *move_inode(struct ext4 *fs, struct fast_inode *f)
{
	struct tw_change *change;
	struct tw_inode *inode;
	struct ext4_inode raw = {0};
	struct tw_attr was = attr_of(fs, f->ino), now = attr_now(fs, f, &was, &raw);
	bool another = is_another(&was, &now),
	     inlined = (was.flags | now.flags) & EXT4_INLINE_DATA_FL;
	if (!was.mode && !now.mode)
		return NULL;
	TW_TRY(mark_inode(fs, f, &was, &now));
	TW_TRY(tw_changeset_inode(fs->set, f->ino, &change));
	TW_TRY(tw_view_inode_add(fs->view, f->ino, &inode));
	TW_TRY(tw_view_set_attr(fs->view, inode, &now));
	if (!S_ISLNK(now.mode))
		TW_TRY(tw_inode_set_target(inode, NULL, 0));
	else if (ext4_inode_fast_symlink(&raw) || raw.flags & EXT4_INLINE_DATA_FL)
		TW_TRY(ext4_attrs_target(fs, &raw, f->ino, NULL));
	if (!another && !(S_ISREG(now.mode) && (f->nranges || inlined)))
		return NULL;
	f->remapped = true;
	f->remap = (struct ext4_remap){.ino = f->ino,
		.flags = raw.flags,
		.old_mode = was.mode,
		.mode = now.mode,
		.extents_only = !another};
	if (!f->raw)
		f->remap.flags = was.flags & EXT4_INLINE_DATA_FL;
	else if (raw.flags & EXT4_INLINE_DATA_FL)
		f->remap.inlined = ext4_inline_digest(&raw);
	if (f->raw && raw.flags & EXT4_INLINE_DATA_FL && S_ISREG(now.mode))
		TW_TRY(ext4_inline_keep(fs, f->ino, &raw));
	return move_content(fs, f, another, change);
}

static struct tw_error *move_inodes(struct fast_work *w)
{
	struct ext4_reader none = {.geo = &w->fs->geo};
	struct fast_inode *f;
	for (f = w->inodes; f; f = f->hh.next)
		TW_TRY(move_inode(w->fs, f));
	for (f = w->inodes; f; f = f->hh.next)
		if (f->remapped)
			TW_TRY(ext4_remap_move(w->fs, &f->remap, &none));
	return NULL;
}

static uint32_t name_dir(const struct fast_name *name)
{
	uint32_t dir;
	memcpy(&dir, name->key, 4);
	return dir;
}

static uint32_t name_ino(const struct fast_name *name)
{
	uint32_t ino;
	memcpy(&ino, name->key + 4, 4);
	return ino;
}

/* The name in the view, or NULL. */
static struct tw_name *find_name(const struct ext4 *fs, const struct fast_name *wanted)
{
	const struct tw_inode *inode = tw_view_inode(fs->view, name_ino(wanted));
	struct tw_name *name;
	for (uint32_t i = 0; inode && (name = tw_view_link(fs->view, inode, i)); i++)
		if (name->len == wanted->len &&
			tw_view_name_dir(fs->view, name) == name_dir(wanted) &&
			!memcmp(name->bytes, wanted->key + 8, name->len))
			return name;
	return NULL;
}

static struct tw_error *count_links(struct fast_work *w)
{
	struct fast_inode *inode;
	for (const struct fast_name *name = w->names; name; name = name->hh.next) {
		bool was = find_name(w->fs, name) != NULL;
		TW_TRY(inode_get(w, name_ino(name), &inode));
		inode->links += (int)name->there - (int)was;
	}
	return NULL;
}

/* Where the view is ahead of the last commit by a name that goes. */
static struct tw_error *mark_place(struct ext4 *fs, uint32_t dir, const struct tw_name *name)
{
	uint64_t block = tw_view_name_block(fs->view, name);
	if (block == EXT4_FAST_BLOCK)
		return NULL;
	return mark(&fs->fast_blocks,
		block == EXT4_INLINE_BLOCK ? ext4_geometry_slot(&fs->geo, dir) : block);
}

static struct tw_error *move_name(struct ext4 *fs, const struct fast_name *wanted)
{
	uint32_t dir = name_dir(wanted), ino = name_ino(wanted);
	struct tw_name *name = find_name(fs, wanted);
	TW_TRY(mark(&fs->fast_dirs, dir));
	if (name && !wanted->there) {
		TW_TRY(mark_place(fs, dir, name));
		return tw_changeset_remove_name(fs->set, name);
	}
	if (name || !wanted->there || !S_ISDIR(attr_of(fs, dir).mode) || !attr_of(fs, ino).mode)
		return NULL;
	return tw_changeset_add_name(
		fs->set, dir, EXT4_FAST_BLOCK, ino, wanted->key + 8, wanted->len);
}

static void drop_gone(struct fast_work *w)
{
	struct tw_view *view = w->fs->view;
	for (const struct fast_inode *f = w->inodes; f; f = f->hh.next) {
		const struct tw_inode *inode = tw_view_inode(view, f->ino);
		if (inode && !tw_view_mode(view, inode) && !tw_inode_named(inode) &&
			!tw_inode_nblocks(inode))
			tw_view_inode_drop(view, f->ino);
	}
}

static void deinit(struct fast_work *w)
{
	struct fast_inode *inode, *next_inode;
	HASH_ITER (hh, w->inodes, inode, next_inode) {
		HASH_DEL(w->inodes, inode);
		ext4_map_deinit(&inode->remap.map);
		free(inode->ranges);
		free(inode);
	}
	struct fast_name *name, *next_name;
	HASH_ITER (hh, w->names, name, next_name) {
		HASH_DEL(w->names, name);
		free(name);
	}
}

static uint32_t count_names(const struct ext4 *fs, uint32_t ino)
{
	const struct tw_inode *inode = tw_view_inode(fs->view, ino);
	uint32_t n = 0;
	while (inode && tw_view_link(fs->view, inode, n))
		n++;
	return n;
}

/* Linux may repeat names that a full commit has overtaken: an inode has as many as it has links,
 * and a directory has one. */
static bool names_hold(const struct fast_work *w, const struct fast_inode *f)
{
	struct tw_attr was = attr_of(w->fs, f->ino);
	struct ext4_inode now = {.attr = was};
	int64_t names = count_names(w->fs, f->ino), then = names + f->links;
	if (!f->links)
		return true;
	if (f->raw)
		ext4_inode_decode(f->raw->bytes, &now);
	if (S_ISDIR(now.attr.mode))
		return then <= 1;
	return !f->raw || (was.mode && names != was.nlink) || then == now.attr.nlink;
}

/* Whether what is put into a directory has a path then. Linux forgets a name that was given while the commit
 * before was under way, and goes on with names in that directory: they would be told of by nobody. */
static bool is_reachable(const struct fast_work *w, uint32_t dir)
{
	const struct fast_inode *f;
	HASH_FIND(hh, w->inodes, &dir, sizeof(dir), f);
	return dir == EXT4_ROOT_INO || (int64_t)count_names(w->fs, dir) + (f ? f->links : 0) > 0;
}

/* Reads the steps and refuses what it cannot do, before anything is moved. */
static struct tw_error *collect(struct fast_work *w, const struct ext4_fc_op *ops, size_t n)
{
	for (size_t i = 0; i < n && !w->refused; i++)
		TW_TRY(take_op(w, &ops[i]));
	for (const struct fast_inode *f = w->inodes; f && !w->refused; f = f->hh.next)
		w->refused = needs_more(w, f);
	if (!w->refused)
		TW_TRY(count_links(w));
	for (const struct fast_inode *f = w->inodes; f && !w->refused; f = f->hh.next)
		w->refused = !names_hold(w, f);
	for (const struct fast_name *name = w->names; name && !w->refused; name = name->hh.next)
		w->refused = name->there && !is_reachable(w, name_dir(name));
	return NULL;
}

static struct tw_error *move(struct fast_work *w, const struct tw_commit *commit)
{
	struct ext4 *fs = w->fs;
	struct tw_error *err = move_inodes(w);
	for (const struct fast_name *name = w->names; name && !err; name = name->hh.next)
		err = move_name(fs, name);
	fs->data_waits = fs->flushed = false;
	fs->fast_applied = true;
	if (!err)
		err = tw_changeset_emit(fs->set, commit);
	ext4_block_clear(&fs->inline_now);
	if (!err)
		drop_gone(w);
	else
		tw_changeset_abandon(fs->set);
	return err;
}

struct tw_error *ext4_fast_apply(struct ext4 *fs, const struct ext4_fc_op *ops, size_t n,
	const struct tw_commit *commit, bool *taken)
{
	struct fast_work w = {.fs = fs};
	struct tw_error *err = collect(&w, ops, n);
	*taken = !err && !w.refused;
	if (*taken)
		err = move(&w, commit);
	deinit(&w);
	return err;
}

struct tw_error *ext4_fast_end(struct ext4 *fs)
{
	for (const struct ext4_block *dir = fs->fast_dirs; dir; dir = dir->hh.next) {
		struct tw_change *change;
		if (!tw_view_inode(fs->view, (uint32_t)dir->block))
			continue;
		TW_TRY(ext4_dirs_lose(fs, (uint32_t)dir->block, EXT4_FAST_BLOCK));
		TW_TRY(tw_changeset_inode(fs->set, (uint32_t)dir->block, &change));
		change->entries = true;
	}
	ext4_block_clear(&fs->fast_dirs);
	ext4_block_clear(&fs->fast_blocks);
	ext4_block_clear(&fs->fast_mapped);
	fs->fast_applied = false;
	return NULL;
}
