/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Kills a sink that does not get on. A guest's write waits until the sink has answered it, so what
 * stands still is killed after a bounded time, and the guest goes on without being watched.
 *
 * A thread of its own, which does nothing but look and kill: it takes no lock that another thread
 * holds for long, logs nothing, and allocates nothing. The bound is counted in what it has seen
 * itself, so that a host that was suspended is no reason.
 */
#ifndef TW_SUPERVISE_WATCHDOG_H
#define TW_SUPERVISE_WATCHDOG_H

#include "base/error.h"
#include "sink-progress.h"
#include <stdbool.h>
#include <stdint.h>

/* Less than a few of the sink's beats says nothing. */
#define TW_WATCHDOG_MIN_MS (4 * SINK_BEAT_MS)

enum tw_watchdog_verdict {
	TW_WATCHDOG_WELL,
	TW_WATCHDOG_NO_BEAT, /* it stood still as a whole */
	TW_WATCHDOG_PENDING, /* a request did not end */
};

struct tw_watchdog;

/* Starts the thread, which has nothing to watch yet. bound_ms: at least TW_WATCHDOG_MIN_MS. */
struct tw_error *tw_watchdog_create(unsigned bound_ms, struct tw_watchdog **out) TW_MUST_CHECK;
/* Ends the thread, and kills nothing. NULL is fine. */
void tw_watchdog_destroy(struct tw_watchdog *dog);

/* Watches the process, a child of the caller that has not been waited for, whose progress page is at
 * path (which that process has made: it has said that it is ready). In place of another one, if any. */
struct tw_error *tw_watchdog_watch(
	struct tw_watchdog *dog, int pid, const char *path) TW_MUST_CHECK;
/* Watches nothing any more. Returns why the process was killed, if it was. */
enum tw_watchdog_verdict tw_watchdog_unwatch(struct tw_watchdog *dog);

/* The page of the process that is watched: a copy. False when there is none. */
struct tw_sink_counts {
	uint64_t sessions, closed, writes, written, reads, refused;
};
bool tw_watchdog_counts(struct tw_watchdog *dog, struct tw_sink_counts *out);

#endif
