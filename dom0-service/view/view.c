/* SPDX-License-Identifier: BSD-3-Clause */
#include "view/view.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* Inodes live in chunks, so that an empty stretch of a big inode table costs a pointer. */
#define CHUNK_SHIFT 6
#define CHUNK_INODES (1u << CHUNK_SHIFT)
/* Deeper than any path that Linux lets a guest make; a loop ends here. */
#define MAX_DEPTH 2048

struct tw_view {
	uint32_t max_ino;
	uint32_t root;
	uint32_t blockbits;
	uint64_t ninodes;
	uint64_t nnames;
	struct tw_inode **chunks; /* an inode with ino == 0 is absent */
	struct tw_owners *owners;
};

struct tw_error *tw_view_create(
	uint32_t max_ino, uint32_t root, uint64_t nblocks, uint32_t blockbits, struct tw_view **out)
{
	struct tw_view *view = calloc(1, sizeof(*view));
	if (!view)
		return tw_error_nomem();
	view->max_ino = max_ino;
	view->root = root;
	view->blockbits = blockbits;
	view->chunks = calloc((max_ino >> CHUNK_SHIFT) + 1, sizeof(*view->chunks));
	struct tw_error *err =
		view->chunks ? tw_owners_create(nblocks, &view->owners) : tw_error_nomem();
	if (err) {
		tw_view_destroy(view);
		return err;
	}
	*out = view;
	return NULL;
}

static void deinit_inode(struct tw_inode *inode)
{
	for (uint32_t i = 0; i < inode->nblocks; i++) {
		struct tw_name *next;
		for (struct tw_name *name = inode->blocks[i].names; name; name = next) {
			next = name->next_in_block;
			free(name);
		}
	}
	free(inode->blocks);
	free(inode->extents);
	free(inode->target);
}

void tw_view_destroy(struct tw_view *view)
{
	if (!view)
		return;
	for (uint32_t c = 0; view->chunks && c <= view->max_ino >> CHUNK_SHIFT; c++) {
		if (!view->chunks[c])
			continue;
		for (unsigned i = 0; i < CHUNK_INODES; i++)
			deinit_inode(&view->chunks[c][i]);
		free(view->chunks[c]);
	}
	free(view->chunks);
	tw_owners_destroy(view->owners);
	free(view);
}

struct tw_error *tw_view_grow(struct tw_view *view, uint32_t max_ino, uint64_t nblocks)
{
	size_t had = (view->max_ino >> CHUNK_SHIFT) + 1ul, n = (max_ino >> CHUNK_SHIFT) + 1ul;
	if (max_ino > view->max_ino) {
		struct tw_inode **chunks = realloc(view->chunks, n * sizeof(struct tw_inode *));
		if (!chunks)
			return tw_error_nomem();
		memset(chunks + had, 0, (n - had) * sizeof(struct tw_inode *));
		view->chunks = chunks;
		view->max_ino = max_ino;
	}
	return tw_owners_grow(view->owners, nblocks);
}

uint32_t tw_view_blockbits(const struct tw_view *view)
{
	return view->blockbits;
}

uint32_t tw_view_root(const struct tw_view *view)
{
	return view->root;
}

struct tw_owners *tw_view_owners(struct tw_view *view)
{
	return view->owners;
}

uint64_t tw_view_inode_count(const struct tw_view *view)
{
	return view->ninodes;
}

uint64_t tw_view_name_count(const struct tw_view *view)
{
	return view->nnames;
}

struct tw_inode *tw_view_inode(const struct tw_view *view, uint32_t ino)
{
	if (!ino || ino > view->max_ino)
		return NULL;
	struct tw_inode *chunk = view->chunks[ino >> CHUNK_SHIFT];
	if (!chunk || !chunk[ino & (CHUNK_INODES - 1)].ino)
		return NULL;
	return &chunk[ino & (CHUNK_INODES - 1)];
}

struct tw_error *tw_view_inode_add(struct tw_view *view, uint32_t ino, struct tw_inode **out)
{
	if (!ino || ino > view->max_ino)
		return tw_error_create(TW_BAD_DATA, "inode %u does not exist: the last one is %u",
			ino, view->max_ino);
	struct tw_inode **chunk = &view->chunks[ino >> CHUNK_SHIFT];
	if (!*chunk)
		*chunk = calloc(CHUNK_INODES, sizeof(**chunk));
	if (!*chunk)
		return tw_error_nomem();
	struct tw_inode *inode = &(*chunk)[ino & (CHUNK_INODES - 1)];
	if (!inode->ino) {
		inode->ino = ino;
		view->ninodes++;
	}
	*out = inode;
	return NULL;
}

void tw_view_inode_drop(struct tw_view *view, uint32_t ino)
{
	struct tw_inode *inode = tw_view_inode(view, ino);
	if (!inode)
		return;
	deinit_inode(inode);
	memset(inode, 0, sizeof(*inode));
	view->ninodes--;
}

struct tw_inode *tw_view_inode_next(const struct tw_view *view, uint32_t ino)
{
	uint32_t c = ino >> CHUNK_SHIFT, i = ino & (CHUNK_INODES - 1);
	for (; c <= view->max_ino >> CHUNK_SHIFT; c++, i = 0) {
		struct tw_inode *chunk = view->chunks[c];
		for (; chunk && i < CHUNK_INODES; i++)
			if (chunk[i].ino)
				return &chunk[i];
	}
	return NULL;
}

/* Index of the directory block, or where it would go. */
static uint32_t dirblock_index(const struct tw_inode *dir, uint64_t block)
{
	uint32_t lo = 0, hi = dir->nblocks;
	while (lo < hi) {
		uint32_t mid = lo + (hi - lo) / 2;
		if (dir->blocks[mid].block < block)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

struct tw_dirblock *tw_view_dirblock(const struct tw_inode *dir, uint64_t block)
{
	uint32_t i = dirblock_index(dir, block);
	return i < dir->nblocks && dir->blocks[i].block == block ? &dir->blocks[i] : NULL;
}

static struct tw_error *dirblock_get(struct tw_inode *dir, uint64_t block, struct tw_dirblock **out)
{
	uint32_t i = dirblock_index(dir, block);
	if (i == dir->nblocks || dir->blocks[i].block != block) {
		/* Grows by doubling: a power of two is full. */
		if (!(dir->nblocks & (dir->nblocks - 1))) {
			size_t cap = dir->nblocks ? dir->nblocks * 2ul : 1;
			struct tw_dirblock *blocks = realloc(dir->blocks, cap * sizeof(*blocks));
			if (!blocks)
				return tw_error_nomem();
			dir->blocks = blocks;
		}
		memmove(dir->blocks + i + 1, dir->blocks + i,
			(dir->nblocks - i) * sizeof(*dir->blocks));
		dir->blocks[i] = (struct tw_dirblock){.block = block};
		dir->nblocks++;
	}
	*out = &dir->blocks[i];
	return NULL;
}

static void leave_block(struct tw_inode *dir, struct tw_name *name)
{
	struct tw_dirblock *holder = tw_view_dirblock(dir, name->block);
	struct tw_name **at = &holder->names;
	while (*at != name)
		at = &(*at)->next_in_block;
	*at = name->next_in_block;
	if (holder->names)
		return;
	uint32_t i = (uint32_t)(holder - dir->blocks);
	memmove(holder, holder + 1, (dir->nblocks - i - 1) * sizeof(*holder));
	dir->nblocks--;
	/* dirblock_get() takes a power of two for full: keep that true after shrinking. */
	if (dir->nblocks && !(dir->nblocks & (dir->nblocks - 1))) {
		struct tw_dirblock *blocks = realloc(dir->blocks, dir->nblocks * sizeof(*blocks));
		if (blocks)
			dir->blocks = blocks;
	}
}

struct tw_error *tw_view_name_add(struct tw_view *view, uint32_t dir_ino, uint64_t block,
	uint32_t ino, const void *bytes, uint8_t len, struct tw_name **out)
{
	struct tw_inode *dir, *inode;
	struct tw_dirblock *holder;
	TW_TRY(tw_view_inode_add(view, dir_ino, &dir));
	TW_TRY(tw_view_inode_add(view, ino, &inode));
	struct tw_name *name = malloc(sizeof(*name) + len);
	if (!name)
		return tw_error_nomem();
	struct tw_error *err = dirblock_get(dir, block, &holder);
	if (err) {
		free(name);
		return err;
	}
	*name = (struct tw_name){
		.ino = ino,
		.dir = dir_ino,
		.block = block,
		.len = len,
		.next_in_block = holder->names,
	};
	memcpy(name->bytes, bytes, len);
	holder->names = name;
	/* Behind the first name, which is the oldest and stays the one that paths use. */
	struct tw_name **at = inode->names ? &inode->names->next_of_inode : &inode->names;
	name->next_of_inode = *at;
	*at = name;
	dir->nentries++;
	view->nnames++;
	if (out)
		*out = name;
	return NULL;
}

void tw_view_name_remove(struct tw_view *view, struct tw_name *name)
{
	struct tw_inode *dir = tw_view_inode(view, name->dir);
	struct tw_inode *inode = tw_view_inode(view, name->ino);
	leave_block(dir, name);
	struct tw_name **at = &inode->names;
	while (*at != name)
		at = &(*at)->next_of_inode;
	*at = name->next_of_inode;
	dir->nentries--;
	view->nnames--;
	free(name);
}

struct tw_error *tw_view_name_rehome(struct tw_view *view, struct tw_name *name, uint64_t block)
{
	struct tw_inode *dir = tw_view_inode(view, name->dir);
	struct tw_dirblock *holder;
	if (name->block == block)
		return NULL;
	leave_block(dir, name);
	TW_TRY(dirblock_get(dir, block, &holder));
	name->block = block;
	name->next_in_block = holder->names;
	holder->names = name;
	return NULL;
}

bool tw_view_path(const struct tw_view *view, const struct tw_name *name, struct tw_buf *out)
{
	const struct tw_name *steps[MAX_DEPTH];
	size_t n = 0, len = 0, fit = 0;
	for (;;) {
		if (n == MAX_DEPTH)
			return false;
		steps[n++] = name;
		len += name->len + 1ul;
		if (len <= TW_PATH_MAX)
			fit = n;
		if (name->dir == view->root)
			break;
		const struct tw_inode *dir = tw_view_inode(view, name->dir);
		if (!dir || !dir->names)
			return false;
		name = dir->names;
	}
	bool whole = fit == n;
	while (fit--) {
		if (whole)
			tw_buf_append(out, "/", 1);
		whole = true;
		tw_buf_append(out, steps[fit]->bytes, steps[fit]->len);
	}
	return true;
}

bool tw_view_inode_path(
	const struct tw_view *view, const struct tw_inode *inode, struct tw_buf *out)
{
	if (inode->ino == view->root) {
		tw_buf_append(out, "/", 1);
		return true;
	}
	return inode->names && tw_view_path(view, inode->names, out);
}

enum tw_kind tw_mode_kind(uint16_t mode)
{
	switch (mode & S_IFMT) {
	case S_IFREG:
		return TW_KIND_FILE;
	case S_IFDIR:
		return TW_KIND_DIR;
	case S_IFLNK:
		return TW_KIND_SYMLINK;
	case S_IFIFO:
		return TW_KIND_FIFO;
	case S_IFSOCK:
		return TW_KIND_SOCKET;
	case S_IFCHR:
		return TW_KIND_CHAR;
	case S_IFBLK:
		return TW_KIND_BLOCK;
	}
	return TW_KIND_NONE;
}

void tw_view_describe(
	const struct tw_inode *inode, const struct tw_attr *attr, struct tw_event *event)
{
	event->kind = tw_mode_kind(attr->mode);
	event->inode = inode->ino;
	event->generation = attr->generation;
	event->size = attr->size;
	event->mode = attr->mode & 07777;
	event->uid = attr->uid;
	event->gid = attr->gid;
	event->nlink = attr->nlink;
	event->mtime = attr->mtime;
	event->ctime = attr->ctime;
	event->rdev_major = attr->rdev >> 20;
	event->rdev_minor = attr->rdev & 0xfffff;
	if (event->kind == TW_KIND_SYMLINK && inode->target)
		event->target = (struct tw_bytes){inode->target, inode->target_len};
}

static enum tw_owner_kind extent_kind(const struct tw_extent *e, enum tw_owner_kind data_kind)
{
	return data_kind == TW_OWNER_DATA && e->unwritten ? TW_OWNER_UNWRITTEN : data_kind;
}

struct tw_error *tw_view_release_extents(struct tw_view *view, uint32_t ino,
	const struct tw_extent *extents, uint32_t n, enum tw_owner_kind data_kind)
{
	for (uint32_t i = 0; i < n; i++)
		TW_TRY(tw_owners_clear(view->owners, extents[i].block, extents[i].count, ino,
			extent_kind(&extents[i], data_kind)));
	return NULL;
}

struct tw_error *tw_view_claim_extents(struct tw_view *view, uint32_t ino,
	const struct tw_extent *extents, uint32_t n, enum tw_owner_kind data_kind)
{
	for (uint32_t i = 0; i < n; i++) {
		struct tw_owner owner = {extents[i].block, extents[i].count, ino, extents[i].lblk,
			extent_kind(&extents[i], data_kind)};
		TW_TRY(tw_owners_set(view->owners, &owner));
	}
	return NULL;
}
