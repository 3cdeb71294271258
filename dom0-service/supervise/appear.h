/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Waits for files to appear, many of them in few directories, by inotify: while nothing appears, nothing runs.
 * Where the directory itself is missing, it is looked for now and then. On the loop's thread.
 */
#ifndef TW_SUPERVISE_APPEAR_H
#define TW_SUPERVISE_APPEAR_H

#include "base/error.h"
#include <uv.h>

struct tw_appear;
struct tw_appear_wait;

struct tw_error *tw_appear_create(uv_loop_t *loop, struct tw_appear **out) TW_MUST_CHECK;
/* Ends all waits. The memory goes when the loop has run its close callbacks. NULL is fine. */
void tw_appear_destroy(struct tw_appear *appear);

/* Calls there(arg) once, from the loop, when path exists (also when it does already); the wait has ended then, and
 * *out points nowhere. path is absolute and copied. */
struct tw_error *tw_appear_wait(struct tw_appear *appear, const char *path, void (*there)(void *arg), void *arg,
	struct tw_appear_wait **out) TW_MUST_CHECK;
/* Ends a wait before that; not one that has ended. NULL is fine. */
void tw_appear_cancel(struct tw_appear_wait *wait);

#endif
