/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * One supervised process on a libuv loop: started, watched, started again after a growing pause
 * when it ends unasked, stopped with SIGTERM and, when it does not listen, SIGKILL. A child never
 * outlives its supervisor: it gets SIGTERM when that dies. Everything runs on the loop's thread.
 */
#ifndef TW_SUPERVISE_CHILD_H
#define TW_SUPERVISE_CHILD_H

#include "base/error.h"
#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#define TW_CHILD_READY_FD 3

enum tw_child_state {
	TW_CHILD_IDLE,     /* not started, or stopped */
	TW_CHILD_STARTING, /* running, not ready yet */
	TW_CHILD_LIVE,     /* running and ready */
	TW_CHILD_PAUSING,  /* ended unasked; will be started again */
	TW_CHILD_STOPPING, /* asked to end */
};

struct tw_child_ops {
	/* The child is ready: called once for each start. */
	void (*ready)(void *arg);
	/* The child ended unasked. status is its exit status, or 128 + the signal that killed it.
	 * Returns whether it is to be started again; was_ready tells whether ready() had been
	 * called. */
	bool (*ended)(void *arg, int status, bool was_ready);
	/* The child that was asked to end has ended; status is -1 when nothing ran. */
	void (*stopped)(void *arg, int status);
	/* A line, without its end, that the child wrote to TW_CHILD_READY_FD, but for the "ready" that makes it
	 * ready. NULL: the descriptor is closed after the first line, which makes it ready whatever it says. */
	void (*line)(void *arg, const char *line);
	/* Asked 50 times a second after the start until it says true: then the child is ready.
	 * NULL: the child writes a line to descriptor TW_CHILD_READY_FD when it is. */
	bool (*probe)(void *arg);
};

struct tw_child;

/* Makes a child that is not started. name is for logs; argv is copied, argv[0] is the program's
 * path. ops must outlive the child. */
struct tw_error *tw_child_create(uv_loop_t *loop, const char *name, const char *const *argv,
	const struct tw_child_ops *ops, void *arg, struct tw_child **out) TW_MUST_CHECK;
/* What it may use from the next start on: bytes of memory of its own (RLIMIT_DATA; 0: no limit), and its nice
 * value. */
void tw_child_limit(struct tw_child *child, uint64_t memory_max, int nice);
/* Starts it; a program that cannot be run counts as one that ended with status 127. */
void tw_child_start(struct tw_child *child);
/* Sends SIGTERM, and SIGKILL after patience_ms; stopped() is called in any case, and at once when
 * nothing runs. */
void tw_child_stop(struct tw_child *child, uint64_t patience_ms);
/* SIGKILL to what runs. */
void tw_child_kill(struct tw_child *child);
/* Frees a child that is idle, once the loop has run its close callbacks; NULL is fine. */
void tw_child_destroy(struct tw_child *child);

enum tw_child_state tw_child_state(const struct tw_child *child);
const char *tw_child_state_name(enum tw_child_state state);
int tw_child_pid(const struct tw_child *child);           /* 0 when nothing runs */
unsigned tw_child_restarts(const struct tw_child *child); /* starts after the first */

/* To be called first in main(): when the program was started by a supervisor as the step between
 * its fork and the child's exec, this becomes the child and does not return. */
void tw_child_main(int argc, char **argv);

#endif
