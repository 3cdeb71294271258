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

/* Inode tables are read in pieces of so many bytes, directories in runs: small enough to be decoded
 * from a core's own cache, where the kernel has just copied them to. */
#define TABLE_PIECE (128u << 10)
#define DIR_RUN (64u << 10)
/* What comes after so many others is announced to the kernel: a disk is kept busy, and works in an
 * order of its own. Groups have some 2 MiB of tables, directories a few blocks. */
#define GROUPS_AHEAD 8u
#define DIRS_AHEAD 128u
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

/* A directory, and its first extent when it is known; otherwise count is 0. */
struct dir {
	uint32_t ino, count;
	uint64_t block;
};

struct crawl {
	struct ext4 *fs;
	const struct tw_source *source;
	struct tw_load *load;
	struct ext4_reader reader; /* used under the load's lock */
	unsigned nthreads;
	uint32_t *next_group; /* for each thread's part of the groups; atomic */
	struct dir *dirs;
	size_t ndirs, next_dir; /* next_dir: atomic */
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
	struct dir *dirs; /* that it has found */
	size_t ndirs, capdirs;
	uint64_t seen[SEEN];
};

static struct tw_error *note_dir(struct worker *w, const struct dir *dir)
{
	if (!TW_GROW(w->dirs, w->ndirs, w->capdirs))
		return tw_error_nomem();
	w->dirs[w->ndirs++] = *dir;
	return NULL;
}

/* What was entered while the others were locked out. */
static struct tw_error *claim_closely(struct worker *w, const struct tw_inode *inode, uint16_t mode)
{
	if (!inode)
		return NULL;
	if (S_ISDIR(mode))
		TW_TRY(note_dir(w, &(struct dir){.ino = inode->ino}));
	return tw_loader_claim(
		w->loader, inode, ext4_data_kind(&w->c->fs->geo, inode->ino, mode));
}

static struct tw_error *load_closely(struct worker *w, uint32_t ino, struct tw_span raw)
{
	struct crawl *c = w->c;
	const struct tw_view *view = c->fs->view;
	tw_loader_rest(w->loader);
	tw_loader_lock(w->loader);
	struct tw_error *err = ext4_load_inode(c->fs, ino, raw, &c->reader, false);
	if (!err)
		err = keep_inline_dir(c, ino, raw);
	ext4_reader_deinit(&c->reader);
	const struct tw_inode *inode = tw_view_inode(view, ino);
	uint16_t mode = inode ? tw_view_mode(view, inode) : 0;
	tw_loader_unlock(w->loader);
	return err ? err : claim_closely(w, inode, mode);
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
	uint32_t n;
	if (!tw_le16(raw, 0)) /* no mode: free */
		return NULL;
	if (ino < geo->first_ino || !ext4_inode_plain(raw, &attr, &map) ||
		!root_extents(geo, map, extents, &n) || (attr.xattrs && !seen(w, attr.xattrs)))
		return load_closely(w, ino, raw);
	if (S_ISDIR(attr.mode))
		TW_TRY(note_dir(w, &(struct dir){ino, n ? extents[0].count : 0, n ? extents[0].block : 0}));
	return tw_loader_inode(
		w->loader, ino, &attr, extents, n, ext4_data_kind(geo, ino, attr.mode));
}

static void announce(const struct crawl *c, uint64_t block, uint32_t count)
{
	const uint32_t bits = c->fs->geo.blockbits;
	if (count)
		tw_source_soon(c->source, block << bits, (uint64_t)count << bits);
}

/* Blocks of a group's table that are in use. */
static uint32_t table_blocks(const struct ext4_geometry *geo, uint32_t group)
{
	uint32_t per_block = geo->blocksize / geo->inode_size;
	return (geo->used[group] + per_block - 1) / per_block;
}

static void announce_group(const struct crawl *c, uint32_t group)
{
	const struct ext4_geometry *geo = &c->fs->geo;
	if (group < geo->ngroups)
		announce(c, geo->itable[group], table_blocks(geo, group));
}

static struct tw_error *load_group(struct worker *w, uint32_t group, uint8_t *buf)
{
	const struct crawl *c = w->c;
	const struct ext4_geometry *geo = &c->fs->geo;
	uint32_t per_block = geo->blocksize / geo->inode_size,
		 piece = TABLE_PIECE >> geo->blockbits;
	uint32_t blocks = table_blocks(geo, group);
	for (uint32_t first = 0; first < blocks; first += piece) {
		uint32_t n = blocks - first < piece ? blocks - first : piece;
		tw_loader_rest(w->loader);
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

/* The groups from which on a part goes, of as many parts as there are threads. */
static uint32_t part_begin(const struct crawl *c, unsigned part)
{
	return (uint32_t)((uint64_t)c->fs->geo.ngroups * part / c->nthreads);
}

static struct tw_error *load_part(struct worker *w, unsigned part, uint8_t *buf)
{
	const struct crawl *c = w->c;
	const uint32_t end = part_begin(c, part + 1);
	for (;;) {
		uint32_t group = __atomic_fetch_add(&c->next_group[part], 1, __ATOMIC_RELAXED);
		if (group >= end)
			return NULL;
		announce_group(c, group + GROUPS_AHEAD);
		TW_TRY(load_group(w, group, buf));
	}
}

/* What one group's inodes own is near: two threads would wait for each other. So each has a part of
 * its own, and helps with the others' when that is done. */
static struct tw_error *load_groups(struct worker *w, unsigned thread, uint8_t *buf)
{
	const unsigned n = w->c->nthreads;
	for (unsigned i = 0; i < n; i++)
		TW_TRY(load_part(w, (thread + i) % n, buf));
	return NULL;
}

/* The directories that a thread has found are added to those of all. */
static struct tw_error *give_dirs(struct worker *w)
{
	struct crawl *c = w->c;
	tw_loader_lock(w->loader);
	size_t n = c->ndirs + w->ndirs;
	struct dir *all = reallocarray(c->dirs, n + 1, sizeof(*all));
	if (all) {
		if (w->ndirs)
			memcpy(all + c->ndirs, w->dirs, w->ndirs * sizeof(*all));
		c->dirs = all;
		c->ndirs = n;
	}
	tw_loader_unlock(w->loader);
	return all ? NULL : tw_error_nomem();
}

static struct tw_error *load_tables(void *arg, unsigned thread)
{
	struct crawl *c = arg;
	struct worker w = {.c = c, .loader = tw_load_thread(c->load, thread)};
	uint8_t *buf = malloc(TABLE_PIECE);
	struct tw_error *err = buf ? load_groups(&w, thread, buf) : tw_error_nomem();
	tw_loader_rest(w.loader);
	if (!err)
		err = give_dirs(&w);
	free(w.dirs);
	free(buf);
	return err;
}

static struct tw_error *load_owners(void *arg, unsigned thread)
{
	const struct crawl *c = arg;
	return tw_load_owners(c->load, thread);
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

/* Its inode may be changing just now. */
static void announce_dir(const struct crawl *c, size_t i)
{
	if (i < c->ndirs)
		announce(c, c->dirs[i].block, c->dirs[i].count);
}

static struct tw_error *load_dir(
	struct crawl *c, struct tw_loader *loader, struct tw_inode *dir, uint8_t *buf)
{
	uint32_t run = DIR_RUN >> c->fs->geo.blockbits, n;
	struct tw_extent one;
	const struct tw_extent *e = tw_inode_extents(dir, &one, &n);
	TW_TRY(tw_loader_dir(loader, dir));
	for (uint32_t i = 1; i < n; i++)
		announce(c, e[i].block, e[i].count);
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
		announce_dir(c, i + DIRS_AHEAD);
		err = load_dir(c, tw_load_thread(c->load, thread),
			tw_view_inode(c->fs->view, c->dirs[i].ino), buf);
	}
	free(buf);
	return err;
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
	uint32_t next_group[TW_PARALLEL_MAX];
	c.next_group = next_group;
	for (unsigned part = 0; part < c.nthreads; part++) {
		next_group[part] = part_begin(&c, part);
		for (uint32_t i = 0; i < GROUPS_AHEAD; i++)
			announce_group(&c, next_group[part] + i);
	}
	TW_TRY(tw_load_begin(fs->view, c.nthreads, &c.load));
	struct tw_error *err = ext4_claim_tables(fs);
	if (!err)
		err = tw_parallel(c.nthreads, load_tables, &c);
	if (!err)
		err = tw_parallel(c.nthreads, load_owners, &c);
	tw_load_owners_end(c.load);
	if (!err)
		err = ext4_claim_nodes(fs);
	for (size_t i = 0; i < DIRS_AHEAD; i++)
		announce_dir(&c, i);
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
