/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Filling a fresh view from several threads at once, for a crawl: first the inodes with their blocks,
 * then, when the owners of blocks are settled, the names. Between begin and end nobody else uses the
 * view, and what comes of it does not depend on who was faster.
 */
#ifndef TW_VIEW_LOAD_H
#define TW_VIEW_LOAD_H

#include "view/view.h"

struct tw_load;
struct tw_loader; /* one thread's */

/* The view must hold no names. */
struct tw_error *tw_load_begin(
	struct tw_view *view, unsigned nthreads, struct tw_load **out) TW_MUST_CHECK;
/* The loader of thread 0 .. nthreads - 1. */
struct tw_loader *tw_load_thread(struct tw_load *load, unsigned i);
/* When all threads are done: names of files that have several, counts. load is gone. */
struct tw_error *tw_load_end(struct tw_load *load) TW_MUST_CHECK;

/* While it is held, the caller may change the view by its ordinary functions, but for the inodes
 * and directories that another thread is at. */
void tw_loader_lock(struct tw_loader *loader);
void tw_loader_unlock(struct tw_loader *loader);

/* Enters an inode that is not in the view, with its extents (copied), and claims its blocks. No other
 * thread may enter the same number. kind: what its blocks are (TW_OWNER_DATA stands for
 * TW_OWNER_UNWRITTEN too, where an extent says so). */
struct tw_error *tw_loader_inode(struct tw_loader *loader, uint32_t ino, const struct tw_attr *attr,
	const struct tw_extent *extents, uint32_t n, enum tw_owner_kind kind) TW_MUST_CHECK;
/* Claims the blocks of an inode that was entered in another way. */
struct tw_error *tw_loader_claim(
	struct tw_loader *loader, const struct tw_inode *inode, enum tw_owner_kind kind) TW_MUST_CHECK;
/* Lets other threads claim what is near to what this one has claimed last: before the thread does
 * something that takes long, and when it has no more inodes. */
void tw_loader_rest(struct tw_loader *loader);
/* When all inodes are entered: settles who owns which block, of two inodes the one with the higher
 * number. Every thread does its part. */
struct tw_error *tw_load_owners(struct tw_load *load, unsigned thread) TW_MUST_CHECK;
/* All parts are done: gives back what that took. Without it tw_load_end() does. */
void tw_load_owners_end(struct tw_load *load);

/* The names of a directory, which no other thread may be at: begin, then block by block, end. The
 * bytes of a name have to stay until the end of its block. */
struct tw_error *tw_loader_dir(struct tw_loader *loader, struct tw_inode *dir) TW_MUST_CHECK;
void tw_loader_dirblock(struct tw_loader *loader, uint64_t block);
struct tw_error *tw_loader_name(
	struct tw_loader *loader, uint32_t ino, const void *bytes, uint8_t len) TW_MUST_CHECK;
struct tw_error *tw_loader_dirblock_end(struct tw_loader *loader) TW_MUST_CHECK;
struct tw_error *tw_loader_dir_end(struct tw_loader *loader) TW_MUST_CHECK;

#endif
