/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Which disks the tapdisks of this host serve: `tap-ctl list`, run beside the loop, once for all who want to know, and
 * not for longer than it may take. On the loop's thread.
 */
#ifndef TW_SUPERVISE_TAPS_H
#define TW_SUPERVISE_TAPS_H

#include "base/error.h"
#include "supervise/tapctl.h"
#include <stddef.h>
#include <uv.h>

struct tw_taps;

/* The n disks, valid during the call. why: NULL, or what is wrong and what to do about it; then nothing is known. */
typedef void tw_taps_listed_fn(void *arg, const struct tw_vbd *disks, size_t n, const char *why);

struct tw_error *tw_taps_create(
	uv_loop_t *loop, tw_taps_listed_fn *listed, void *arg, struct tw_taps **out) TW_MUST_CHECK;
/* Runs tap_ctl, a program's path, and tells; nothing, while one runs. */
void tw_taps_ask(struct tw_taps *taps, const char *tap_ctl);
bool tw_taps_runs(const struct tw_taps *taps);
/* Ends what runs; listed is not called any more. The memory goes when the loop has run its close callbacks. NULL is
 * fine. */
void tw_taps_destroy(struct tw_taps *taps);

/* The disk of this tapdisk; with pid -1 the one of this minor; with both -1 one that serves the file image. NULL: there
 * is none. */
const struct tw_vbd *tw_taps_find(const struct tw_vbd *disks, size_t n, int pid, int minor, const char *image);

#endif
