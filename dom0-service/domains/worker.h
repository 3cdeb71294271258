/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A thread for calls that may block: one job at a time, and the loop goes on meanwhile. xenstored may stop answering,
 * and the service must neither stand still nor hang at its end because of that; libuv's own pool waits for its threads
 * when the program exits.
 */
#ifndef TW_DOMAINS_WORKER_H
#define TW_DOMAINS_WORKER_H

#include "base/error.h"
#include <stdbool.h>
#include <uv.h>

struct tw_worker;

/* work(arg) runs in the thread, done(arg) on the loop afterwards. */
struct tw_error *tw_worker_create(uv_loop_t *loop, void (*work)(void *arg), void (*done)(void *arg), void *arg,
	struct tw_worker **out) TW_MUST_CHECK;
/* Begins a job; there must be none under way. */
void tw_worker_run(struct tw_worker *worker);
bool tw_worker_busy(const struct tw_worker *worker);
/* Milliseconds that the job under way has taken so far; 0: there is none. */
uint64_t tw_worker_busy_ms(const struct tw_worker *worker);
/* Ends the thread; done() is not called any more. One that hangs in a job is left behind with all that it uses: false,
 * and the job's memory must stay. NULL is fine. */
bool tw_worker_destroy(struct tw_worker *worker);

#endif
