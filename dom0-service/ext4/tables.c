/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Reads inode tables and directories into a fresh view, in order and in large pieces, with all
 * processors. Most inodes have a few extents and nothing else: they are entered without a lock; the
 * others go one by one through the way that serves all.
 */
#include "ext4/ext4.h"

#include "base/mem.h"
#include "base/parallel.h"
#include "view/load.h"

#include <stdlib.h>
#include <sys/stat.h>

/* Inode tables are read in pieces of so many bytes, directories in runs. */
#define TABLE_PIECE (512u << 10)
#define DIR_RUN (64u << 10)
/* Threads are not worth it for fewer inodes. */
#define FEW_INODES 4096u
#define MAX_ROOT_EXTENTS 4u
/* Digests of extended attributes that a thread remembers. */
#define SEEN 256u

/* A directory whose names are in its inode: it is looked at when all inodes are there. */
struct inline_dir {
	uint32_t ino;
	uint8_t *raw; /* owned */
};

struct crawl {
	struct ext4 *fs;
	const struct tw_source *source;
	struct tw_load *load;
	struct ext4_reader reader; /* used under the load's lock */
	unsigned nthreads;
	uint32_t next_group; /* atomic */
	uint32_t *dirs;
	size_t ndirs, capdirs, next_dir; /* next_dir: atomic */
	struct inline_dir *inlines;
	size_t ninlines, capinlines;
};

/* The extents of an inode whose mapping is in order and all in the inode. False: look closer. */
static bool root_extents(const struct ext4_geometry *geo, const uint8_t *root,
	struct tw_extent out[MAX_ROOT_EXTENTS], uint32_t *n)
{
	enum { MAGIC = 0xf30a, HEADER = 12, ENTRY = 12, MAX_LEN = 32768 };
	struct tw_span map = tw_span(root, EXT4_MAP_BYTES);
	uint64_t next = 0;
	*n = tw_le16(map, 2);
	if (tw_le16(map, 0) != MAGIC || *n > MAX_ROOT_EXTENTS || tw_le16(map, 6))
		return false;
	for (uint32_t i = 0; i < *n; i++) {
		size_t at = HEADER + i * ENTRY;
		uint32_t lblk = tw_le32(map, at), len = tw_le16(map, at + 4);
		uint64_t block = tw_le32(map, at + 8) | (uint64_t)tw_le16(map, at + 6) << 32;
		bool unwritten = len > MAX_LEN;
		len -= unwritten ? MAX_LEN : 0;
		if (!len || lblk < next || !block || block < geo->first_data_block ||
			block >= geo->nblocks || len > geo->nblocks - block)
			return false;
		next = (uint64_t)lblk + len;
		out[i] = (struct tw_extent){block, lblk, len & TW_EXTENT_MAX, unwritten};
	}
	return true;
}

static struct tw_error *keep_inline_dir(struct crawl *c, uint32_t ino, struct tw_span raw)
{
	struct ext4_inode now;
	ext4_inode_decode(raw, &now);
	if (!S_ISDIR(now.attr.mode) || !(now.flags & EXT4_INLINE_DATA_FL) ||
		!ext4_inode_tracked(&c->fs->geo, &now))
		return NULL;
	if (!TW_GROW(c->inlines, c->ninlines, c->capinlines))
		return tw_error_nomem();
	uint8_t *copy = (uint8_t *)tw_memdup(raw.data, raw.len);
	if (!copy)
		return tw_error_nomem();
	c->inlines[c->ninlines++] = (struct inline_dir){ino, copy};
	return NULL;
}

static int by_ino(const void *a, const void *b)
{
	const struct inline_dir *x = a, *y = b;
	return x->ino < y->ino ? -1 : x->ino > y->ino;
}

static struct tw_error *load_inline_dirs(struct crawl *c)
{
	if (c->ninlines)
		qsort(c->inlines, c->ninlines, sizeof(*c->inlines), by_ino);
	for (size_t i = 0; i < c->ninlines; i++) {
		struct ext4_inode now;
		ext4_inode_decode(tw_span(c->inlines[i].raw, c->fs->geo.inode_size), &now);
		TW_TRY(ext4_dirs_load_inline(c->fs, c->inlines[i].ino, &now));
	}
	return NULL;
}

/* A thread that reads inode tables. Sets of extended attributes that it has seen are kept already:
 * most inodes share a few. */
struct worker {
	struct crawl *c;
	struct tw_loader *loader;
	uint64_t seen[SEEN];
};

static struct tw_error *load_closely(struct worker *w, uint32_t ino, struct tw_span raw)
{
	struct crawl *c = w->c;
	tw_loader_lock(w->loader);
	struct tw_error *err = ext4_load_inode(c->fs, ino, raw, &c->reader, false);
	if (!err)
		err = keep_inline_dir(c, ino, raw);
	ext4_reader_deinit(&c->reader);
	tw_loader_unlock(w->loader);
	return err;
}

static bool seen(struct worker *w, uint64_t xattrs)
{
	uint64_t *place = &w->seen[xattrs % SEEN];
	bool was = *place == xattrs;
	*place = xattrs;
	return was;
}

static struct tw_error *load_slot(struct worker *w, uint32_t ino, struct tw_span raw)
{
	const struct ext4_geometry *geo = &w->c->fs->geo;
	struct tw_attr attr;
	const uint8_t *map;
	struct tw_extent extents[MAX_ROOT_EXTENTS];
	struct tw_inode *inode;
	uint32_t n;
	if (!tw_le16(raw, 0)) /* no mode: free */
		return NULL;
	if (ino < geo->first_ino || !ext4_inode_plain(raw, &attr, &map) ||
		!root_extents(geo, map, extents, &n) || (attr.xattrs && !seen(w, attr.xattrs)))
		return load_closely(w, ino, raw);
	return tw_loader_inode(w->loader, ino, &attr, extents, n, &inode);
}

static struct tw_error *load_group(struct worker *w, uint32_t group, uint8_t *buf)
{
	const struct crawl *c = w->c;
	const struct ext4_geometry *geo = &c->fs->geo;
	uint32_t per_block = geo->blocksize / geo->inode_size,
		 piece = TABLE_PIECE >> geo->blockbits;
	uint32_t blocks = (geo->used[group] + per_block - 1) / per_block;
	tw_source_soon(c->source, geo->itable[group] << geo->blockbits,
		(uint64_t)blocks << geo->blockbits);
	for (uint32_t first = 0; first < blocks; first += piece) {
		uint32_t n = blocks - first < piece ? blocks - first : piece;
		TW_TRY(tw_source_read(c->source, (geo->itable[group] + first) << geo->blockbits,
			buf, (size_t)n << geo->blockbits));
		for (uint32_t i = 0; i < n * per_block; i++) {
			uint32_t index = first * per_block + i;
			uint32_t ino = group * geo->inodes_per_group + index + 1;
			if (index >= geo->used[group] || ino > geo->ninodes)
				break;
			if (ino < geo->first_ino && ino != EXT4_ROOT_INO)
				continue;
			const uint8_t *raw = buf + (size_t)i * geo->inode_size;
			TW_TRY(load_slot(w, ino, tw_span(raw, geo->inode_size)));
		}
	}
	return NULL;
}

static struct tw_error *load_tables(void *arg, unsigned thread)
{
	struct crawl *c = arg;
	struct worker w = {.c = c, .loader = tw_load_thread(c->load, thread)};
	struct tw_error *err = NULL;
	uint8_t *buf = malloc(TABLE_PIECE);
	if (!buf)
		return tw_error_nomem();
	while (!err) {
		uint32_t group = __atomic_fetch_add(&c->next_group, 1, __ATOMIC_RELAXED);
		if (group >= c->fs->geo.ngroups)
			break;
		err = load_group(&w, group, buf);
	}
	free(buf);
	return err;
}

static enum tw_owner_kind kind_of(const void *arg, uint32_t ino, uint16_t mode)
{
	return ext4_data_kind(arg, ino, mode);
}

static struct tw_error *load_owners(void *arg, unsigned thread)
{
	struct crawl *c = arg;
	return tw_load_owners(c->fs->view, thread, c->nthreads, kind_of, &c->fs->geo);
}

/* Reads blocks that follow each other at once. Two directories of a hostile guest may claim a
 * block: one has it. */
static struct tw_error *load_run(struct crawl *c, struct tw_loader *loader, uint32_t dir,
	uint64_t block, uint32_t n, uint8_t *buf)
{
	uint32_t bits = c->fs->geo.blockbits;
	bool encrypted =
		tw_view_flags(c->fs->view, tw_view_inode(c->fs->view, dir)) & EXT4_ENCRYPT_FL;
	TW_TRY(tw_source_read(c->source, block << bits, buf, (size_t)n << bits));
	for (uint32_t i = 0; i < n; i++)
		if (ext4_dirs_owns(c->fs, dir, block + i))
			TW_TRY(ext4_dirs_load(
				c->fs, loader, encrypted, block + i, buf + ((size_t)i << bits)));
	return NULL;
}

static struct tw_error *load_dir(
	struct crawl *c, struct tw_loader *loader, struct tw_inode *dir, uint8_t *buf)
{
	uint32_t run = DIR_RUN >> c->fs->geo.blockbits, n;
	struct tw_extent one;
	const struct tw_extent *e = tw_inode_extents(dir, &one, &n);
	TW_TRY(tw_loader_dir(loader, dir));
	for (; n--; e++)
		for (uint32_t k = 0; k < e->count; k += run)
			TW_TRY(load_run(c, loader, dir->ino, e->block + k,
				e->count - k < run ? e->count - k : run, buf));
	return tw_loader_dir_end(loader);
}

static struct tw_error *load_dirs(void *arg, unsigned thread)
{
	struct crawl *c = arg;
	struct tw_error *err = NULL;
	uint8_t *buf = malloc(DIR_RUN);
	if (!buf)
		return tw_error_nomem();
	while (!err) {
		size_t i = __atomic_fetch_add(&c->next_dir, 1, __ATOMIC_RELAXED);
		if (i >= c->ndirs)
			break;
		err = load_dir(c, tw_load_thread(c->load, thread),
			tw_view_inode(c->fs->view, c->dirs[i]), buf);
	}
	free(buf);
	return err;
}

static struct tw_error *list_dirs(struct crawl *c)
{
	const struct tw_view *view = c->fs->view;
	const struct tw_inode *inode = tw_view_inode_next(view, 1);
	for (; inode; inode = tw_view_inode_next(view, inode->ino + 1)) {
		if (!S_ISDIR(tw_view_mode(view, inode)))
			continue;
		if (!TW_GROW(c->dirs, c->ndirs, c->capdirs))
			return tw_error_nomem();
		c->dirs[c->ndirs++] = inode->ino;
	}
	return NULL;
}

static unsigned threads_for(const struct ext4 *fs, const struct tw_source *source)
{
	uint64_t used = 0;
	for (uint32_t g = 0; g < fs->geo.ngroups; g++)
		used += fs->geo.used[g];
	return source->parallel && used > FEW_INODES ? tw_parallel_width() : 1;
}

struct tw_error *ext4_load_tree(struct ext4 *fs, const struct tw_source *source)
{
	struct crawl c = {.fs = fs,
		.source = source,
		.nthreads = threads_for(fs, source),
		.reader = {.geo = &fs->geo, .nodes = &fs->nodes, .source = source}};
	TW_TRY(tw_load_begin(fs->view, c.nthreads, &c.load));
	struct tw_error *err = tw_parallel(c.nthreads, load_tables, &c);
	if (!err)
		err = ext4_claim_tables(fs);
	if (!err)
		err = tw_parallel(c.nthreads, load_owners, &c);
	if (!err)
		err = ext4_claim_nodes(fs);
	if (!err)
		err = list_dirs(&c);
	if (!err)
		err = tw_parallel(c.nthreads, load_dirs, &c);
	struct tw_error *end = tw_load_end(c.load);
	if (err)
		tw_error_destroy(end);
	else
		err = end ? end : load_inline_dirs(&c);
	for (size_t i = 0; i < c.ninlines; i++)
		free(c.inlines[i].raw);
	free(c.inlines);
	free(c.dirs);
	return err;
}
