/* SPDX-License-Identifier: BSD-3-Clause */
/* The change of a tapdisk (supervise/tapctl.h) in a process of its own, watched from a libuv loop. */
#ifndef TW_SUPERVISE_CHANGE_H
#define TW_SUPERVISE_CHANGE_H

#include "base/error.h"
#include "supervise/tapctl.h"
#include <stdbool.h>
#include <uv.h>

struct tw_change;

/* status: 0, of enum tw_switch_status, or 128 + the signal that ended it; said: the line that goes with
 * it, valid during the call. */
typedef void tw_change_done_fn(void *arg, int status, const char *said);

struct tw_error *tw_change_create(
	uv_loop_t *loop, tw_change_done_fn *done, void *arg, struct tw_change **out) TW_MUST_CHECK;
/* Starts one, when none runs. done is called from the loop, also when it cannot be started. */
void tw_change_start(struct tw_change *change, const struct tw_mirror_switch *what);
bool tw_change_runs(const struct tw_change *change);
/* One that runs comes to its end all the same. See tw_child_destroy. NULL is fine. */
void tw_change_destroy(struct tw_change *change);

#endif
