/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * One watched disk: its inspector and what fills its ring, if that is started from here: the nbdkit
 * that serves the image, or the mirror under an unmodified tapdisk.
 * The inspector has looked at the image before the first client of nbdkit can write to it: nbdkit
 * starts on a private socket, which gets its public name once the inspector is live. A mirror's
 * guest runs already.
 */
#ifndef TW_SUPERVISE_DISK_H
#define TW_SUPERVISE_DISK_H

#include "event/json.h"
#include "supervise/appear.h"
#include "supervise/report.h"
#include "supervise/spec.h"
#include <stdbool.h>
#include <uv.h>

struct tw_watch_ops {
	/* The disk is watched (and served), for the first time. */
	void (*live)(void *arg);
	/* A part ended with this status (see child.h) before the disk was live for the first time.
	 * Returns whether to try again. */
	bool (*failed)(void *arg, int status);
	/* After tw_watch_stop_serving and tw_watch_stop_inspecting, each. */
	void (*stopped)(void *arg);
	/* The inspector may start: it calls tw_watch_go(), at once or later. */
	void (*may_start)(void *arg);
	/* The start that tw_watch_go() began is over, well or not. */
	void (*started)(void *arg);
	/* tw_watch_report() says something else than before. */
	void (*changed)(void *arg);
};

struct tw_watch;

/* spec is copied; appear and ops must outlive the watch. */
struct tw_error *tw_watch_create(uv_loop_t *loop, struct tw_appear *appear, const struct tw_disk_spec *spec,
	const struct tw_watch_ops *ops, void *arg, struct tw_watch **out) TW_MUST_CHECK;
/* Starts nbdkit or the mirror, then the inspector; without them, waits for the ring to appear. */
void tw_watch_start(struct tw_watch *watch);
/* Starts the inspector, unless it has been told to stop meanwhile. */
void tw_watch_go(struct tw_watch *watch);
/* The two halves of an orderly end: no more guest requests; then the inspector empties the ring. for_good: the disk
 * is gone; its ring goes, too, when it is empty and its capture point has ended. */
void tw_watch_stop_serving(struct tw_watch *watch);
void tw_watch_stop_inspecting(struct tw_watch *watch, bool for_good);
void tw_watch_kill(struct tw_watch *watch);
/* What waits for its time, or was given up, is tried at once. */
void tw_watch_retry(struct tw_watch *watch);
/* See tw_child_destroy. NULL is fine. */
void tw_watch_destroy(struct tw_watch *watch);

const struct tw_disk_spec *tw_watch_spec(const struct tw_watch *watch);
const struct tw_report *tw_watch_report(const struct tw_watch *watch);
/* Writes the disk's status as one JSON object of an array. */
void tw_watch_status(const struct tw_watch *watch, struct tw_json *json);

#endif
