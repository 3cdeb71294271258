/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Filling a fresh view from several threads at once, for a crawl: first the inodes, then the owners
 * of their blocks, then the names. Between begin and end nobody else uses the view, and what comes
 * of it does not depend on who was faster.
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

/* Enters an inode that is not in the view, with its extents (copied). No other thread may enter the
 * same number. */
struct tw_error *tw_loader_inode(struct tw_loader *loader, uint32_t ino, const struct tw_attr *attr,
	const struct tw_extent *extents, uint32_t n, struct tw_inode **out) TW_MUST_CHECK;

/* What the blocks of an inode are. */
typedef enum tw_owner_kind (*tw_kind_fn)(const void *arg, uint32_t ino, uint16_t mode);
/* Claims the blocks of all inodes in the order of their numbers, but only those in part i of n
 * equal parts of the volume: the parts may be done at the same time. */
struct tw_error *tw_load_owners(struct tw_view *view, unsigned i, unsigned n, tw_kind_fn kind,
	const void *arg) TW_MUST_CHECK;

/* The names of a directory, which no other thread may be at: begin, then block by block, end. The
 * bytes of a name have to stay until the end of its block. */
struct tw_error *tw_loader_dir(struct tw_loader *loader, struct tw_inode *dir) TW_MUST_CHECK;
void tw_loader_dirblock(struct tw_loader *loader, uint64_t block);
struct tw_error *tw_loader_name(
	struct tw_loader *loader, uint32_t ino, const void *bytes, uint8_t len) TW_MUST_CHECK;
struct tw_error *tw_loader_dirblock_end(struct tw_loader *loader) TW_MUST_CHECK;
struct tw_error *tw_loader_dir_end(struct tw_loader *loader) TW_MUST_CHECK;

#endif
