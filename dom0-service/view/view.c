/* SPDX-License-Identifier: BSD-3-Clause */
#include "view/inside.h"

#include "base/mem.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

struct tw_error *tw_view_create(
	uint32_t max_ino, uint32_t root, uint64_t nblocks, uint32_t blockbits, struct tw_view **out)
{
	struct tw_view *view = calloc(1, sizeof(*view));
	if (!view)
		return tw_error_nomem();
	view->max_ino = max_ino;
	view->root = root;
	view->blockbits = blockbits;
	view->chunks = calloc((max_ino >> TW_CHUNK_SHIFT) + 1ul, sizeof(*view->chunks));
	view->memo = calloc(1, sizeof(*view->memo));
	struct tw_error *err =
		view->chunks && view->memo ? tw_commons_init(&view->commons) : tw_error_nomem();
	if (!err)
		err = tw_owners_create(nblocks, &view->owners);
	if (err) {
		tw_view_destroy(view);
		return err;
	}
	*out = view;
	return NULL;
}

static void free_body(struct tw_inode *inode)
{
	struct tw_body *body = tw_inode_body(inode);
	inode->map = 0;
	if (!body)
		return;
	free(body->extents);
	free(body->target);
	free(body->blocks);
	free(body);
}

void tw_view_destroy(struct tw_view *view)
{
	if (!view)
		return;
	for (uint32_t c = 0; view->chunks && c <= view->max_ino >> TW_CHUNK_SHIFT; c++) {
		if (!view->chunks[c])
			continue;
		for (unsigned i = 0; i < TW_CHUNK_INODES; i++)
			free_body(&view->chunks[c][i]);
	}
	tw_slab_deinit(&view->slab);
	free(view->chunks);
	tw_names_deinit(&view->names);
	tw_commons_deinit(&view->commons);
	tw_owners_destroy(view->owners);
	free(view->memo);
	free(view);
}

struct tw_error *tw_view_grow(struct tw_view *view, uint32_t max_ino, uint64_t nblocks)
{
	size_t had = (view->max_ino >> TW_CHUNK_SHIFT) + 1ul, n = (max_ino >> TW_CHUNK_SHIFT) + 1ul;
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
	struct tw_inode *chunk =
		__atomic_load_n(&view->chunks[ino >> TW_CHUNK_SHIFT], __ATOMIC_ACQUIRE);
	if (!chunk || !chunk[ino & (TW_CHUNK_INODES - 1)].ino)
		return NULL;
	return &chunk[ino & (TW_CHUNK_INODES - 1)];
}

struct tw_inode *tw_view_chunk(struct tw_view *view, uint32_t ino)
{
	struct tw_inode **at = &view->chunks[ino >> TW_CHUNK_SHIFT];
	struct tw_inode *was = __atomic_load_n(at, __ATOMIC_ACQUIRE);
	if (was)
		return was;
	struct tw_inode *chunk =
		tw_slab_take(&view->slab, TW_CHUNK_INODES * sizeof(struct tw_inode));
	if (!chunk)
		return NULL;
	/* A load's threads make chunks, too. */
	bool ours = __atomic_compare_exchange_n(
		at, &was, chunk, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE);
	return ours ? chunk : was;
}

struct tw_error *tw_view_inode_add(struct tw_view *view, uint32_t ino, struct tw_inode **out)
{
	if (!ino || ino > view->max_ino)
		return tw_error_create(TW_BAD_DATA, "inode %u does not exist: the last one is %u",
			ino, view->max_ino);
	struct tw_inode *chunk = tw_view_chunk(view, ino);
	if (!chunk)
		return tw_error_nomem();
	struct tw_inode *inode = &chunk[ino & (TW_CHUNK_INODES - 1)];
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
	free_body(inode);
	tw_commons_put(&view->commons, inode->common);
	memset(inode, 0, sizeof(*inode));
	view->ninodes--;
}

struct tw_inode *tw_view_inode_next(const struct tw_view *view, uint32_t ino)
{
	uint32_t c = ino >> TW_CHUNK_SHIFT, i = ino & (TW_CHUNK_INODES - 1);
	for (; c <= view->max_ino >> TW_CHUNK_SHIFT; c++, i = 0) {
		struct tw_inode *chunk = view->chunks[c];
		for (; chunk && i < TW_CHUNK_INODES; i++)
			if (chunk[i].ino)
				return &chunk[i];
	}
	return NULL;
}

/* 34 bits of seconds from 1901 on, which is what ext4 has, and 30 of nanoseconds. */
#define TIME_EPOCH (1ll << 31)
#define NSEC_BITS 30

static uint64_t pack_time(struct tw_time time)
{
	return (uint64_t)(time.sec + TIME_EPOCH) << NSEC_BITS |
	       (time.nsec & ((1u << NSEC_BITS) - 1));
}

static struct tw_time unpack_time(uint64_t packed)
{
	return (struct tw_time){.sec = (int64_t)(packed >> NSEC_BITS) - TIME_EPOCH,
		.nsec = packed & ((1u << NSEC_BITS) - 1)};
}

struct tw_attr tw_view_attr(const struct tw_view *view, const struct tw_inode *inode)
{
	const struct tw_common *common = &view->commons.at[inode->common];
	if (!inode->common)
		return (struct tw_attr){0};
	return (struct tw_attr){
		.size = inode->size_links >> 16,
		.nlink = inode->size_links & 0xffff,
		.mtime = unpack_time(inode->mtime),
		.ctime = unpack_time(inode->ctime),
		.generation = inode->generation,
		.xattrs = common->xattrs,
		.flags = common->flags,
		.uid = common->uid,
		.gid = common->gid,
		.rdev = common->rdev,
		.mode = common->mode,
	};
}

void tw_inode_pack(struct tw_inode *inode, const struct tw_attr *attr, uint32_t common)
{
	uint64_t size = attr->size < TW_SIZE_MAX ? attr->size : TW_SIZE_MAX;
	inode->common = common;
	inode->size_links = size << 16 | (attr->nlink & 0xffff);
	inode->mtime = pack_time(attr->mtime);
	inode->ctime = pack_time(attr->ctime);
	inode->generation = attr->generation;
}

struct tw_error *tw_view_set_attr(
	struct tw_view *view, struct tw_inode *inode, const struct tw_attr *attr)
{
	uint32_t was = inode->common, common;
	TW_TRY(tw_commons_get(&view->commons, attr, &common));
	tw_commons_put(&view->commons, was);
	tw_inode_pack(inode, attr, common);
	return NULL;
}

uint16_t tw_view_mode(const struct tw_view *view, const struct tw_inode *inode)
{
	return view->commons.at[inode->common].mode;
}

uint32_t tw_view_flags(const struct tw_view *view, const struct tw_inode *inode)
{
	return view->commons.at[inode->common].flags;
}

struct tw_body *tw_inode_body_get(struct tw_inode *inode)
{
	struct tw_extent one, *copy = NULL;
	uint32_t n;
	struct tw_body *body = tw_inode_body(inode);
	if (body)
		return body;
	tw_inode_extents(inode, &one, &n);
	body = calloc(1, sizeof(*body));
	if (body && n)
		copy = malloc(sizeof(*copy));
	if (!body || (n && !copy)) {
		free(body);
		return NULL;
	}
	if (n)
		*copy = one;
	body->extents = copy;
	body->nextents = n;
	inode->map = (uintptr_t)body;
	return body;
}

const struct tw_extent *tw_inode_extents(
	const struct tw_inode *inode, struct tw_extent *one, uint32_t *n)
{
	const struct tw_body *body = tw_inode_body(inode);
	*n = body ? body->nextents : inode->map != 0;
	if (body || !inode->map)
		return body ? body->extents : NULL;
	*one = tw_map_unpack(inode->map);
	return one;
}

/* Extents in the inode, as long as it has nothing else that needs a body. */
static bool set_in_map(struct tw_inode *inode, const struct tw_extent *extents, uint32_t n)
{
	const struct tw_body *body = tw_inode_body(inode);
	if (n > 1 || (n && !tw_map_fits(extents)) || (body && (body->target || body->capblocks)))
		return false;
	/* extents may be the inode's own. */
	uint64_t map = n ? tw_map_pack(extents) : 0;
	free_body(inode);
	inode->map = map;
	return true;
}

struct tw_error *tw_inode_set_extents(
	struct tw_inode *inode, const struct tw_extent *extents, uint32_t n)
{
	if (set_in_map(inode, extents, n))
		return NULL;
	struct tw_body *body = tw_inode_body_get(inode);
	struct tw_extent *copy = body && n ? malloc(n * sizeof(*copy)) : NULL;
	if (!body || (n && !copy))
		return tw_error_nomem();
	if (n)
		memcpy(copy, extents, n * sizeof(*copy));
	free(body->extents);
	body->extents = copy;
	body->nextents = n;
	return NULL;
}

const char *tw_inode_target(const struct tw_inode *inode, uint32_t *len)
{
	const struct tw_body *body = tw_inode_body(inode);
	*len = body && body->target ? body->target_len : 0;
	return body ? body->target : NULL;
}

struct tw_error *tw_inode_set_target(struct tw_inode *inode, const void *target, uint32_t len)
{
	struct tw_body *body = target ? tw_inode_body_get(inode) : tw_inode_body(inode);
	char *copy = target && body ? tw_memdup(target, len) : NULL;
	if (target && !copy)
		return tw_error_nomem();
	if (!body)
		return NULL;
	free(body->target);
	body->target = copy;
	body->target_len = copy ? len : 0;
	return NULL;
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
	event->encrypted = attr->flags & TW_FLAG_ENCRYPTED;
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
	uint32_t len;
	const char *target = tw_inode_target(inode, &len);
	if (event->kind == TW_KIND_SYMLINK && target)
		event->target = (struct tw_bytes){target, len};
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
