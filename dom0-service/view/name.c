/* SPDX-License-Identifier: BSD-3-Clause */
/* Names and the directory blocks that hold them. */
#include "view/inside.h"

#include "base/mem.h"

#include <stdlib.h>
#include <string.h>

/* Names given back are cut up for smaller ones when they are more than a quarter of all. */
#define MAX_UNUSED_PART 4u
/* A block's list is cleared of dead names when they are more than the others and so many. */
#define MAX_DEAD 8u
#define MAX_CHUNKS (TW_NAME_LINKS >> TW_NAME_CHUNK_SHIFT)

void tw_names_deinit(struct tw_names *names)
{
	tw_slab_deinit(&names->slab);
	free(names->chunks);
	for (uint32_t i = 0; i < names->ndirchunks; i++)
		free(names->dirblocks[i]);
	free(names->dirblocks);
	for (uint32_t i = 0; i < names->nlinks; i++)
		free(names->links[i].names);
	free(names->links);
}

struct tw_name *tw_view_name_at(const struct tw_view *view, uint32_t ref)
{
	if (!ref)
		return NULL;
	return (struct tw_name *)(view->names.chunks[ref >> TW_NAME_CHUNK_SHIFT] +
				  (ref & (TW_NAME_CHUNK_UNITS - 1)) * TW_NAME_UNIT);
}

static void give_back(struct tw_view *view, uint32_t ref, uint32_t units)
{
	tw_view_name_at(view, ref)->next = view->names.unused[units];
	view->names.unused[units] = ref;
	view->names.unused_units += units;
}

static uint32_t take_unused(struct tw_view *view, uint32_t units)
{
	struct tw_names *names = &view->names;
	uint32_t ref = names->unused[units];
	if (!ref)
		return 0;
	names->unused[units] = tw_view_name_at(view, ref)->next;
	names->unused_units -= units;
	return ref;
}

/* Cuts a larger unused name in two; what is left is large enough to be found again. */
static uint32_t cut_unused(struct tw_view *view, uint32_t units)
{
	const struct tw_names *names = &view->names;
	if (names->unused_units < names->units / MAX_UNUSED_PART)
		return 0;
	for (uint32_t more = units + tw_name_units(1); more < TW_NAME_CLASSES; more++) {
		uint32_t ref = take_unused(view, more);
		if (!ref)
			continue;
		give_back(view, ref + units, more - units);
		return ref;
	}
	return 0;
}

bool tw_names_chunk(struct tw_names *names)
{
	if (names->nchunks == MAX_CHUNKS ||
		!TW_GROW(names->chunks, names->nchunks, names->capchunks))
		return false;
	uint8_t *chunk = tw_slab_take(&names->slab, TW_NAME_CHUNK_UNITS * TW_NAME_UNIT - 16);
	if (!chunk)
		return false;
	names->chunks[names->nchunks++] = chunk;
	names->fresh = names->nchunks == 1; /* reference 0 is none */
	return true;
}

/* Room for a name of so many bytes. 0: no memory. */
static uint32_t name_alloc(struct tw_view *view, uint8_t len)
{
	struct tw_names *names = &view->names;
	uint32_t units = tw_name_units(len);
	uint32_t ref = take_unused(view, units);
	if (!ref)
		ref = cut_unused(view, units);
	if (ref)
		return ref;
	if ((!names->nchunks || names->fresh + units > TW_NAME_CHUNK_END) && !tw_names_chunk(names))
		return 0;
	ref = (names->nchunks - 1) << TW_NAME_CHUNK_SHIFT | names->fresh;
	names->fresh += units;
	names->units += units;
	return ref;
}

/* --- directory blocks --- */

/* Index of the directory block, or where it would go. */
static uint32_t dirblock_index(
	const struct tw_names *names, const struct tw_body *body, uint64_t block)
{
	uint32_t lo = 0, hi = body->nblocks;
	/* A directory mostly grows at its end. */
	if (hi && tw_dirblock_number(names, body->blocks[hi - 1])->block < block)
		return hi;
	while (lo < hi) {
		uint32_t mid = lo + (hi - lo) / 2;
		if (tw_dirblock_number(names, body->blocks[mid])->block < block)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

static bool dirblock_is(
	const struct tw_names *names, const struct tw_body *body, uint32_t i, uint64_t block)
{
	return i < body->nblocks && tw_dirblock_number(names, body->blocks[i])->block == block;
}

bool tw_names_dirchunk(struct tw_names *names)
{
	if (!TW_GROW(names->dirblocks, names->ndirchunks, names->capdirchunks))
		return false;
	struct tw_dirblock *chunk = malloc(TW_DIRCHUNK * sizeof(*chunk));
	if (!chunk)
		return false;
	names->dirblocks[names->ndirchunks] = chunk;
	names->ndirblocks = names->ndirchunks++ << TW_DIRCHUNK_SHIFT;
	if (!names->ndirblocks)
		names->ndirblocks = 1; /* 0 is none */
	return true;
}

/* A new directory block, or 0. */
static uint32_t dirblock_alloc(struct tw_names *names, uint32_t dir, uint64_t block)
{
	uint32_t number = names->unused_dirblock;
	if (number) {
		names->unused_dirblock = tw_dirblock_number(names, number)->names;
	} else {
		if (!(names->ndirblocks & (TW_DIRCHUNK - 1)) && !tw_names_dirchunk(names))
			return 0;
		number = names->ndirblocks++;
	}
	*tw_dirblock_number(names, number) = (struct tw_dirblock){.block = block, .dir = dir};
	return number;
}

static struct tw_error *dirblock_get(
	struct tw_view *view, struct tw_inode *dir, uint64_t block, uint32_t *out)
{
	struct tw_body *body = tw_inode_body_get(dir);
	if (!body)
		return tw_error_nomem();
	uint32_t i = dirblock_index(&view->names, body, block);
	if (!dirblock_is(&view->names, body, i, block)) {
		if (!TW_GROW(body->blocks, body->nblocks, body->capblocks))
			return tw_error_nomem();
		uint32_t number = dirblock_alloc(&view->names, dir->ino, block);
		if (!number)
			return tw_error_nomem();
		memmove(body->blocks + i + 1, body->blocks + i,
			(body->nblocks - i) * sizeof(*body->blocks));
		body->blocks[i] = number;
		body->nblocks++;
	}
	*out = body->blocks[i];
	return NULL;
}

static void dirblock_drop(struct tw_view *view, uint32_t number)
{
	struct tw_dirblock *holder = tw_dirblock_number(&view->names, number);
	struct tw_body *body = tw_inode_body(tw_view_inode(view, holder->dir));
	uint32_t i = dirblock_index(&view->names, body, holder->block);
	body->nblocks--;
	memmove(body->blocks + i, body->blocks + i + 1,
		(body->nblocks - i) * sizeof(*body->blocks));
	holder->names = view->names.unused_dirblock;
	view->names.unused_dirblock = number;
	if (body->nblocks)
		return;
	free(body->blocks);
	body->blocks = NULL;
	body->capblocks = 0;
}

static void enter_block(struct tw_view *view, uint32_t ref, uint32_t holder)
{
	tw_dirblock_number(&view->names, holder)->live++;
	struct tw_name *name = tw_view_name_at(view, ref);
	name->holder = holder;
	struct tw_dirblock *block = tw_dirblock_number(&view->names, holder);
	name->next = block->names;
	block->names = ref;
}

/* Gives back the names of a block that were taken away. */
static void sweep(struct tw_view *view, struct tw_dirblock *holder)
{
	uint32_t *at = &holder->names;
	while (*at) {
		uint32_t ref = *at;
		struct tw_name *name = tw_view_name_at(view, ref);
		if (name->ino) {
			at = &name->next;
			continue;
		}
		*at = name->next;
		give_back(view, ref, tw_name_units(name->len));
	}
	holder->dead = 0;
}

static void one_less(struct tw_view *view, uint32_t number)
{
	struct tw_dirblock *holder = tw_dirblock_number(&view->names, number);
	holder->live--;
	if (!holder->live || holder->dead > holder->live + MAX_DEAD)
		sweep(view, holder);
	if (!holder->live)
		dirblock_drop(view, number);
}

/* Takes a name that lives on out of its block. Gives its reference. */
static uint32_t leave_block(struct tw_view *view, const struct tw_name *name)
{
	uint32_t *at = &tw_dirblock_number(&view->names, name->holder)->names, ref;
	while (tw_view_name_at(view, *at) != name)
		at = &tw_view_name_at(view, *at)->next;
	ref = *at;
	*at = name->next;
	one_less(view, name->holder);
	return ref;
}

/* Leaves a name in its block's list as one that is no more: looking for it there each time would
 * make emptying a directory quadratic. */
static void die_in_block(struct tw_view *view, struct tw_name *name)
{
	name->ino = 0;
	tw_dirblock_number(&view->names, name->holder)->dead++;
	one_less(view, name->holder);
}

/* --- the names of an inode --- */

static uint32_t links_alloc(struct tw_names *names)
{
	uint32_t number = names->unused_links;
	if (number) {
		names->unused_links = names->links[number].cap;
	} else {
		if (!TW_GROW(names->links, names->nlinks, names->caplinks))
			return 0;
		if (!names->nlinks)
			names->links[names->nlinks++] = (struct tw_links){0}; /* 0 is none */
		number = names->nlinks++;
	}
	names->links[number] = (struct tw_links){0};
	return number;
}

static void links_drop(struct tw_names *names, uint32_t number)
{
	struct tw_links *links = &names->links[number];
	free(links->names);
	*links = (struct tw_links){.cap = names->unused_links};
	names->unused_links = number;
}

static struct tw_links *links_of(const struct tw_view *view, const struct tw_inode *inode)
{
	if (!(inode->name & TW_NAME_LINKS))
		return NULL;
	return &view->names.links[inode->name & ~TW_NAME_LINKS];
}

struct tw_error *tw_view_link_name(struct tw_view *view, struct tw_inode *inode, uint32_t ref)
{
	struct tw_links *links = links_of(view, inode);
	if (!inode->name) {
		inode->name = ref;
		return NULL;
	}
	if (!links) {
		uint32_t number = links_alloc(&view->names);
		if (!number)
			return tw_error_nomem();
		links = &view->names.links[number];
		if (!TW_GROW(links->names, links->n, links->cap)) {
			links_drop(&view->names, number);
			return tw_error_nomem();
		}
		links->names[links->n++] = inode->name;
		inode->name = number | TW_NAME_LINKS;
	}
	if (!TW_GROW(links->names, links->n, links->cap))
		return tw_error_nomem();
	links->names[links->n++] = ref;
	return NULL;
}

static void unlink_name(struct tw_view *view, struct tw_inode *inode, const struct tw_name *name)
{
	struct tw_links *links = links_of(view, inode);
	if (!links) {
		inode->name = 0;
		return;
	}
	uint32_t i = 0;
	while (tw_view_name_at(view, links->names[i]) != name)
		i++;
	links->n--;
	memmove(links->names + i, links->names + i + 1, (links->n - i) * sizeof(*links->names));
	if (links->n > 1)
		return;
	uint32_t number = inode->name & ~TW_NAME_LINKS;
	inode->name = links->names[0];
	links_drop(&view->names, number);
}

struct tw_error *tw_view_name_add(struct tw_view *view, uint32_t dir_ino, uint64_t block,
	uint32_t ino, const void *bytes, uint8_t len, struct tw_name **out)
{
	struct tw_inode *dir, *inode;
	uint32_t holder;
	TW_TRY(tw_view_inode_add(view, dir_ino, &dir));
	TW_TRY(tw_view_inode_add(view, ino, &inode));
	TW_TRY(dirblock_get(view, dir, block, &holder));
	uint32_t ref = name_alloc(view, len);
	if (!ref) {
		if (!tw_dirblock_number(&view->names, holder)->live)
			dirblock_drop(view, holder);
		return tw_error_nomem();
	}
	struct tw_name *name = tw_view_name_at(view, ref);
	name->ino = ino;
	name->len = len;
	name->removed = false;
	name->opaque = tw_view_flags(view, dir) & TW_FLAG_ENCRYPTED;
	memcpy(name->bytes, bytes, len);
	enter_block(view, ref, holder);
	struct tw_error *err = tw_view_link_name(view, inode, ref);
	if (err) {
		die_in_block(view, name);
		return err;
	}
	tw_inode_body(dir)->nentries++;
	view->nnames++;
	tw_path_forget(view, inode);
	if (out)
		*out = name;
	return NULL;
}

void tw_view_name_remove(struct tw_view *view, struct tw_name *name)
{
	struct tw_inode *dir = tw_view_inode(view, tw_view_name_dir(view, name));
	struct tw_inode *inode = tw_view_inode(view, name->ino);
	tw_path_forget(view, inode);
	unlink_name(view, inode, name);
	tw_inode_body(dir)->nentries--;
	view->nnames--;
	die_in_block(view, name);
}

struct tw_error *tw_view_name_rehome(struct tw_view *view, struct tw_name *name, uint64_t block)
{
	struct tw_inode *dir = tw_view_inode(view, tw_view_name_dir(view, name));
	uint32_t holder;
	if (tw_view_name_block(view, name) == block)
		return NULL;
	/* The new block first: without memory the name stays where it is. */
	TW_TRY(dirblock_get(view, dir, block, &holder));
	enter_block(view, leave_block(view, name), holder);
	return NULL;
}

uint32_t tw_view_name_dir(const struct tw_view *view, const struct tw_name *name)
{
	return tw_dirblock_number(&view->names, name->holder)->dir;
}

uint64_t tw_view_name_block(const struct tw_view *view, const struct tw_name *name)
{
	return tw_dirblock_number(&view->names, name->holder)->block;
}

struct tw_name *tw_view_link(const struct tw_view *view, const struct tw_inode *inode, uint32_t i)
{
	const struct tw_links *links = links_of(view, inode);
	if (links)
		return i < links->n ? tw_view_name_at(view, links->names[i]) : NULL;
	return i ? NULL : tw_view_name_at(view, inode->name);
}

bool tw_inode_named(const struct tw_inode *inode)
{
	return inode->name != 0;
}

uint32_t tw_inode_nentries(const struct tw_inode *dir)
{
	const struct tw_body *body = tw_inode_body(dir);
	return body ? body->nentries : 0;
}

uint32_t tw_inode_nblocks(const struct tw_inode *dir)
{
	const struct tw_body *body = tw_inode_body(dir);
	return body ? body->nblocks : 0;
}

struct tw_dirblock *tw_view_dirblock_at(
	const struct tw_view *view, const struct tw_inode *dir, uint32_t i)
{
	return tw_dirblock_number(&view->names, tw_inode_body(dir)->blocks[i]);
}

struct tw_dirblock *tw_view_dirblock(
	const struct tw_view *view, const struct tw_inode *dir, uint64_t block)
{
	const struct tw_body *body = tw_inode_body(dir);
	uint32_t i = body ? dirblock_index(&view->names, body, block) : 0;
	if (!body || !dirblock_is(&view->names, body, i, block))
		return NULL;
	return tw_dirblock_number(&view->names, body->blocks[i]);
}

static struct tw_name *first_alive(const struct tw_view *view, uint32_t ref)
{
	struct tw_name *name = tw_view_name_at(view, ref);
	while (name && !name->ino)
		name = tw_view_name_at(view, name->next);
	return name;
}

struct tw_name *tw_view_block_names(const struct tw_view *view, const struct tw_dirblock *holder)
{
	return first_alive(view, holder->names);
}

struct tw_name *tw_view_block_next(const struct tw_view *view, const struct tw_name *name)
{
	return first_alive(view, name->next);
}
