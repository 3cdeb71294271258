/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The mirror of one disk that an unmodified tapdisk serves: the sink, its watchdog, and its place under
 * the tapdisk. The sink is started and put there (the disk is paused for a moment); when it dies or is
 * killed for standing still, tapdisk goes on alone, and a new sink is put there after a growing pause.
 * Everything but the watchdog's thread runs on the loop's thread.
 *
 * Each connection of the tapdisk is a session with a ring of its own (sink.h). The inspector compares
 * the whole image with its view when a session begins, and asks for a new one, by a byte into
 * "<ring>.renew", when it has lost its place within one.
 */
#ifndef TW_SUPERVISE_MIRROR_H
#define TW_SUPERVISE_MIRROR_H

#include "base/error.h"
#include "event/json.h"
#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

struct tw_mirror_spec {
	const char *name; /* for logs */
	const char *image;
	const char *ring;
	const char *ring_size; /* as nbdkit reads sizes, or NULL */
	const char *target;    /* "PID:MINOR", or "auto": the tapdisk that serves the image */
	const char *tap_ctl;   /* the program's path */
	unsigned stall_ms;     /* what a write may wait for the sink */
	unsigned tries;        /* give up after so many failures in a row; 0: never */
};

struct tw_mirror_ops {
	/* A session has begun: the ring is there. Called for each. */
	void (*live)(void *arg);
	/* The first session could not be had (status as sysexits.h). Returns whether to try on. */
	bool (*failed)(void *arg, int status);
	/* After tw_mirror_stop. */
	void (*stopped)(void *arg);
	/* What is wrong has changed; NULL: nothing is any more. */
	void (*trouble)(void *arg, const char *what);
};

struct tw_mirror;

/* spec and its strings, and ops, must outlive the mirror. */
struct tw_error *tw_mirror_create(uv_loop_t *loop, const struct tw_mirror_spec *spec,
	const struct tw_mirror_ops *ops, void *arg, struct tw_mirror **out) TW_MUST_CHECK;
void tw_mirror_start(struct tw_mirror *mirror);
/* Takes the mirror from the tapdisk, then ends the sink: what the guest wrote before is in the ring. */
void tw_mirror_stop(struct tw_mirror *mirror);
/* The sink only, at once; a change of the tapdisk that is under way comes to its end. */
void tw_mirror_kill(struct tw_mirror *mirror);
/* Tries at once what waits for its time, or was given up. */
void tw_mirror_retry(struct tw_mirror *mirror);
/* See tw_child_destroy. NULL is fine. */
void tw_mirror_destroy(struct tw_mirror *mirror);

bool tw_mirror_is_live(const struct tw_mirror *mirror);
/* The members of an open JSON object. */
void tw_mirror_status(const struct tw_mirror *mirror, struct tw_json *json);

#endif
