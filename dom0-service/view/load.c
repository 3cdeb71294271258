/* SPDX-License-Identifier: BSD-3-Clause */
#include "view/load.h"

#include "base/mem.h"
#include "view/inside.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

/* What a loader knows of the common parts of inodes, so that it seldom needs the lock. */
#define CACHED 16u
struct cached {
	struct tw_common key; /* refs: of inodes that the table does not count yet */
	uint32_t number;
};

/* A name of an inode that had one already. */
struct another {
	uint32_t ino, ref;
};

/* A name that waits until its inode is in the cache. */
#define WAITING 32u
struct waiting {
	const uint8_t *bytes;
	uint32_t ino;
	uint8_t len;
};

/* A directory block in the making. */
struct dirblock {
	uint64_t block;
	uint32_t number;
};

struct tw_loader {
	struct tw_load *load;
	struct tw_view *view;
	struct tw_filler filler;
	uint64_t ninodes, nnames, units;
	struct cached cached[CACHED];
	/* inodes */
	struct tw_slab slab; /* becomes the view's */
	struct tw_inode *spare; /* a chunk that is not in the view */
	/* names */
	uint8_t *chunk;
	uint32_t chunk_number, fresh;
	struct another *others;
	size_t nothers, capothers;
	/* directory blocks */
	struct tw_dirblock *dirchunk;
	uint32_t dirblock, dirblocks_left; /* the next number, and how many follow it */
	struct tw_inode *dir;
	bool opaque;    /* its names are encrypted */
	uint64_t block; /* the one whose names come */
	struct tw_dirblock *holder;
	uint32_t holder_number, nentries;
	struct dirblock *blocks;
	uint32_t nblocks, capblocks;
	struct waiting waiting[WAITING];
	unsigned nwaiting;
};

struct tw_load {
	struct tw_view *view;
	struct tw_fill *fill;
	pthread_mutex_t lock;
	unsigned nthreads;
	struct tw_loader loaders[];
};

struct tw_error *tw_load_begin(struct tw_view *view, unsigned nthreads, struct tw_load **out)
{
	struct tw_load *load = calloc(1, sizeof(*load) + nthreads * sizeof(*load->loaders));
	if (!load)
		return tw_error_nomem();
	struct tw_error *err = tw_fill_begin(tw_view_owners(view), &load->fill);
	if (err) {
		free(load);
		return err;
	}
	load->view = view;
	load->nthreads = nthreads;
	pthread_mutex_init(&load->lock, NULL);
	for (unsigned i = 0; i < nthreads; i++) {
		load->loaders[i].load = load;
		load->loaders[i].view = view;
		load->loaders[i].filler.fill = load->fill;
	}
	*out = load;
	return NULL;
}

struct tw_loader *tw_load_thread(struct tw_load *load, unsigned i)
{
	return &load->loaders[i];
}

void tw_loader_lock(struct tw_loader *loader)
{
	pthread_mutex_lock(&loader->load->lock);
}

void tw_loader_unlock(struct tw_loader *loader)
{
	pthread_mutex_unlock(&loader->load->lock);
}

/* --- inodes --- */

static bool same_common(const struct tw_common *c, const struct tw_attr *attr)
{
	return c->mode == attr->mode && c->uid == attr->uid && c->gid == attr->gid &&
	       c->flags == attr->flags && c->rdev == attr->rdev && c->xattrs == attr->xattrs;
}

static struct cached *cached_of(struct tw_loader *loader, const struct tw_attr *attr)
{
	uint32_t h = (attr->mode * 31u + attr->uid * 7u + attr->flags + (uint32_t)attr->xattrs) *
		     0x9e3779b1u;
	return &loader->cached[h >> 28];
}
_Static_assert(CACHED == 16, "four bits of a hash");

static struct tw_error *common_number(
	struct tw_loader *loader, const struct tw_attr *attr, uint32_t *out)
{
	struct cached *c = cached_of(loader, attr);
	if (!c->number || !same_common(&c->key, attr)) {
		struct tw_commons *commons = &loader->view->commons;
		tw_loader_lock(loader);
		if (c->number)
			commons->at[c->number].refs += c->key.refs;
		c->number = 0;
		struct tw_error *err = tw_commons_get(commons, attr, out);
		if (!err && *out) {
			c->number = *out;
			c->key = commons->at[*out];
			c->key.refs = 0;
		}
		tw_loader_unlock(loader);
		return err;
	}
	c->key.refs++;
	*out = c->number;
	return NULL;
}

static void count_commons(struct tw_loader *loader)
{
	for (unsigned i = 0; i < CACHED; i++)
		if (loader->cached[i].number)
			loader->view->commons.at[loader->cached[i].number].refs +=
				loader->cached[i].key.refs;
}

/* The chunk of an inode number that nobody has made yet; but another thread may be faster. */
static struct tw_inode *new_inodes(struct tw_loader *loader, struct tw_inode **at)
{
	struct tw_inode *chunk = NULL;
	if (!loader->spare)
		loader->spare =
			tw_slab_take(&loader->slab, TW_CHUNK_INODES * sizeof(struct tw_inode));
	if (!loader->spare)
		return NULL;
	if (!__atomic_compare_exchange_n(
		    at, &chunk, loader->spare, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE))
		return chunk;
	chunk = loader->spare;
	loader->spare = NULL;
	return chunk;
}

/* The slot of an inode number that the volume has. NULL: no memory. */
static struct tw_inode *slot_of(struct tw_loader *loader, uint32_t ino)
{
	struct tw_inode **at = &loader->view->chunks[ino >> TW_CHUNK_SHIFT];
	struct tw_inode *chunk = __atomic_load_n(at, __ATOMIC_ACQUIRE);
	if (!chunk)
		chunk = new_inodes(loader, at);
	return chunk ? &chunk[ino & (TW_CHUNK_INODES - 1)] : NULL;
}

static struct tw_error *claim(struct tw_loader *loader, uint32_t ino,
	const struct tw_extent *extents, uint32_t n, enum tw_owner_kind kind)
{
	for (const struct tw_extent *e = extents; n--; e++) {
		bool unwritten = kind == TW_OWNER_DATA && e->unwritten;
		struct tw_owner owner = {
			e->block, e->count, ino, e->lblk, unwritten ? TW_OWNER_UNWRITTEN : kind};
		TW_TRY(tw_fill_add(&loader->filler, &owner));
	}
	return NULL;
}

struct tw_error *tw_loader_inode(struct tw_loader *loader, uint32_t ino, const struct tw_attr *attr,
	const struct tw_extent *extents, uint32_t n, enum tw_owner_kind kind)
{
	uint32_t common;
	if (!ino || ino > loader->view->max_ino)
		return tw_error_create(TW_BAD_DATA, "inode %u does not exist: the last one is %u",
			ino, loader->view->max_ino);
	struct tw_inode *inode = slot_of(loader, ino);
	if (!inode)
		return tw_error_nomem();
	TW_TRY(common_number(loader, attr, &common));
	inode->ino = ino;
	loader->ninodes++;
	tw_inode_pack(inode, attr, common);
	if (n == 1 && tw_map_fits(extents))
		inode->map = tw_map_pack(extents);
	else if (n)
		TW_TRY(tw_inode_set_extents(inode, extents, n));
	return claim(loader, ino, extents, n, kind);
}

struct tw_error *tw_loader_claim(
	struct tw_loader *loader, const struct tw_inode *inode, enum tw_owner_kind kind)
{
	struct tw_extent one;
	uint32_t n;
	const struct tw_extent *extents = tw_inode_extents(inode, &one, &n);
	return claim(loader, inode->ino, extents, n, kind);
}

void tw_loader_rest(struct tw_loader *loader)
{
	tw_fill_rest(&loader->filler);
}

struct tw_error *tw_load_owners(struct tw_load *load, unsigned thread)
{
	return tw_fill_settle(load->fill, thread, load->nthreads);
}

void tw_load_owners_end(struct tw_load *load)
{
	tw_fill_end(load->fill);
	load->fill = NULL;
	for (unsigned i = 0; i < load->nthreads; i++)
		tw_filler_deinit(&load->loaders[i].filler);
}

/* --- names --- */

static struct tw_error *new_chunk(struct tw_loader *loader)
{
	struct tw_names *names = &loader->view->names;
	tw_loader_lock(loader);
	bool ok = tw_names_chunk(names);
	if (ok) {
		loader->chunk_number = names->nchunks - 1;
		loader->chunk = names->chunks[loader->chunk_number];
		loader->fresh = names->fresh;
	}
	tw_loader_unlock(loader);
	return ok ? NULL : tw_error_nomem();
}

static struct tw_error *new_dirchunk(struct tw_loader *loader)
{
	struct tw_names *names = &loader->view->names;
	tw_loader_lock(loader);
	bool ok = tw_names_dirchunk(names);
	if (ok) {
		loader->dirblock = names->ndirblocks;
		names->ndirblocks = names->ndirchunks << TW_DIRCHUNK_SHIFT;
		loader->dirblocks_left = names->ndirblocks - loader->dirblock;
		loader->dirchunk = names->dirblocks[names->ndirchunks - 1];
	}
	tw_loader_unlock(loader);
	return ok ? NULL : tw_error_nomem();
}

struct tw_error *tw_loader_dir(struct tw_loader *loader, struct tw_inode *dir)
{
	loader->dir = dir;
	loader->opaque = tw_view_flags(loader->view, dir) & TW_FLAG_ENCRYPTED;
	loader->nblocks = 0;
	loader->nentries = 0;
	return NULL;
}

void tw_loader_dirblock(struct tw_loader *loader, uint64_t block)
{
	loader->block = block;
	loader->holder = NULL;
}

/* The block has a name: now it counts. */
static struct tw_error *begin_block(struct tw_loader *loader)
{
	if (!loader->dirblocks_left)
		TW_TRY(new_dirchunk(loader));
	if (!TW_GROW(loader->blocks, loader->nblocks, loader->capblocks))
		return tw_error_nomem();
	loader->holder_number = loader->dirblock++;
	loader->dirblocks_left--;
	loader->holder = &loader->dirchunk[loader->holder_number & (TW_DIRCHUNK - 1)];
	*loader->holder = (struct tw_dirblock){.block = loader->block, .dir = loader->dir->ino};
	loader->blocks[loader->nblocks++] = (struct dirblock){loader->block, loader->holder_number};
	return NULL;
}

/* The inode that a name is of; a name of none that is in use makes one, as it always does. */
static struct tw_error *named_inode(struct tw_loader *loader, uint32_t ino, struct tw_inode **out)
{
	if (!ino || ino > loader->view->max_ino)
		return tw_error_create(TW_BAD_DATA, "inode %u does not exist: the last one is %u",
			ino, loader->view->max_ino);
	struct tw_inode *inode = slot_of(loader, ino);
	if (!inode)
		return tw_error_nomem();
	if (!__atomic_load_n(&inode->ino, __ATOMIC_RELAXED)) {
		tw_loader_lock(loader);
		loader->ninodes += !inode->ino;
		__atomic_store_n(&inode->ino, ino, __ATOMIC_RELAXED);
		tw_loader_unlock(loader);
	}
	*out = inode;
	return NULL;
}

/* The names of a directory are in no order of inodes: each one would be waited for. */
static void prefetch(const struct tw_loader *loader, uint32_t ino)
{
	const struct tw_inode *chunk =
		__atomic_load_n(&loader->view->chunks[ino >> TW_CHUNK_SHIFT], __ATOMIC_ACQUIRE);
	if (chunk)
		__builtin_prefetch(&chunk[ino & (TW_CHUNK_INODES - 1)].ino, 1);
}

static struct tw_error *enter_name(
	struct tw_loader *loader, uint32_t ino, const void *bytes, uint8_t len)
{
	struct tw_inode *inode;
	uint32_t units = tw_name_units(len), none = 0;
	TW_TRY(named_inode(loader, ino, &inode));
	if (!loader->holder)
		TW_TRY(begin_block(loader));
	if (!loader->chunk || loader->fresh + units > TW_NAME_CHUNK_END)
		TW_TRY(new_chunk(loader));
	uint32_t ref = loader->chunk_number << TW_NAME_CHUNK_SHIFT | loader->fresh;
	struct tw_name *name =
		(struct tw_name *)(loader->chunk + (size_t)loader->fresh * TW_NAME_UNIT);
	if (__atomic_load_n(&inode->name, __ATOMIC_RELAXED) ||
		!__atomic_compare_exchange_n(
			&inode->name, &none, ref, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
		if (!TW_GROW(loader->others, loader->nothers, loader->capothers))
			return tw_error_nomem();
		loader->others[loader->nothers++] = (struct another){ino, ref};
	}
	loader->fresh += units;
	loader->units += units;
	name->next = loader->holder->names;
	name->holder = loader->holder_number;
	name->ino = ino;
	name->len = len;
	name->removed = false;
	name->opaque = loader->opaque;
	memcpy(name->bytes, bytes, len);
	loader->holder->names = ref;
	loader->holder->live++;
	loader->nentries++;
	loader->nnames++;
	return NULL;
}

struct tw_error *tw_loader_name(
	struct tw_loader *loader, uint32_t ino, const void *bytes, uint8_t len)
{
	if (loader->nwaiting == WAITING)
		TW_TRY(tw_loader_dirblock_end(loader));
	if (ino && ino <= loader->view->max_ino)
		prefetch(loader, ino);
	loader->waiting[loader->nwaiting++] = (struct waiting){bytes, ino, len};
	return NULL;
}

struct tw_error *tw_loader_dirblock_end(struct tw_loader *loader)
{
	unsigned n = loader->nwaiting;
	loader->nwaiting = 0;
	for (unsigned i = 0; i < n; i++)
		TW_TRY(enter_name(loader, loader->waiting[i].ino, loader->waiting[i].bytes,
			loader->waiting[i].len));
	return NULL;
}

static int by_block(const void *a, const void *b)
{
	const struct dirblock *x = a, *y = b;
	return x->block < y->block ? -1 : x->block > y->block;
}

struct tw_error *tw_loader_dir_end(struct tw_loader *loader)
{
	uint32_t n = loader->nblocks;
	if (!n)
		return NULL;
	struct tw_body *body = tw_inode_body_get(loader->dir);
	if (!body)
		return tw_error_nomem();
	body->blocks = malloc(n * sizeof(*body->blocks));
	if (!body->blocks)
		return tw_error_nomem();
	if (n > 1)
		qsort(loader->blocks, n, sizeof(*loader->blocks), by_block);
	for (uint32_t i = 0; i < n; i++)
		body->blocks[i] = loader->blocks[i].number;
	body->nblocks = body->capblocks = n;
	body->nentries = loader->nentries;
	return NULL;
}

/* --- the end --- */

/* By where they stand, which does not depend on who found them. */
static int by_place(const void *a, const void *b, void *arg)
{
	const struct another *x = a, *y = b;
	const struct tw_view *view = arg;
	if (x->ino != y->ino)
		return x->ino < y->ino ? -1 : 1;
	const struct tw_name *p = tw_view_name_at(view, x->ref);
	const struct tw_name *q = tw_view_name_at(view, y->ref);
	uint32_t dir = tw_view_name_dir(view, p), other = tw_view_name_dir(view, q);
	if (dir != other)
		return dir < other ? -1 : 1;
	uint64_t block = tw_view_name_block(view, p), at = tw_view_name_block(view, q);
	if (block != at)
		return block < at ? -1 : 1;
	int ret = memcmp(p->bytes, q->bytes, p->len < q->len ? p->len : q->len);
	return ret ? ret : (int)p->len - (int)q->len;
}

static struct tw_error *collect_others(struct tw_load *load, struct another **out, size_t *n)
{
	size_t sum = 0;
	for (unsigned i = 0; i < load->nthreads; i++)
		sum += load->loaders[i].nothers;
	/* The ones that came first stand in their inodes: one more each at most. */
	struct another *all = calloc(2 * sum + 1, sizeof(*all));
	if (!all)
		return tw_error_nomem();
	*n = 0;
	for (unsigned i = 0; i < load->nthreads; i++)
		for (size_t k = 0; k < load->loaders[i].nothers; k++) {
			struct another other = load->loaders[i].others[k];
			struct tw_inode *inode = tw_view_inode(load->view, other.ino);
			if (inode->name)
				all[(*n)++] = (struct another){other.ino, inode->name};
			inode->name = 0;
			all[(*n)++] = other;
		}
	*out = all;
	return NULL;
}

static struct tw_error *link_others(struct tw_load *load)
{
	struct another *all;
	size_t n;
	TW_TRY(collect_others(load, &all, &n));
	qsort_r(all, n, sizeof(*all), by_place, load->view);
	struct tw_error *err = NULL;
	for (size_t i = 0; i < n && !err; i++)
		err = tw_view_link_name(
			load->view, tw_view_inode(load->view, all[i].ino), all[i].ref);
	free(all);
	return err;
}

struct tw_error *tw_load_end(struct tw_load *load)
{
	struct tw_names *names = &load->view->names;
	names->fresh = TW_NAME_CHUNK_UNITS;
	for (unsigned i = 0; i < load->nthreads; i++) {
		struct tw_loader *loader = &load->loaders[i];
		count_commons(loader);
		load->view->ninodes += loader->ninodes;
		load->view->nnames += loader->nnames;
		names->units += loader->units;
		/* The last chunk is filled up by whoever comes next. */
		if (loader->chunk && loader->chunk_number == names->nchunks - 1)
			names->fresh = loader->fresh;
	}
	struct tw_error *err = link_others(load);
	tw_load_owners_end(load);
	for (unsigned i = 0; i < load->nthreads; i++) {
		tw_slab_join(&load->view->slab, &load->loaders[i].slab);
		free(load->loaders[i].others);
		free(load->loaders[i].blocks);
	}
	pthread_mutex_destroy(&load->lock);
	free(load);
	return err;
}
