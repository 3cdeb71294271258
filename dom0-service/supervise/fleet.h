/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The disks that are watched, whoever named them: added, changed and dropped while the service runs. A disk is
 * known by the state directory of its spec. Inspectors start a few at a time. On the loop's thread.
 */
#ifndef TW_SUPERVISE_FLEET_H
#define TW_SUPERVISE_FLEET_H

#include "supervise/disk.h"

struct tw_fleet_ops {
	/* See tw_watch_ops: a disk is live for the first time; a part of one has failed before that. */
	void (*live)(void *arg);
	bool (*failed)(void *arg, int status);
	/* The report of a disk says something else. NULL is fine. */
	void (*changed)(void *arg, const struct tw_disk_spec *spec, const struct tw_report *report);
	/* A disk that was dropped has ended, and what was in its ring is read. NULL is fine. */
	void (*gone)(void *arg, const char *state_dir);
	/* tw_fleet_stop() is done: there is no disk any more. */
	void (*stopped)(void *arg);
};

struct tw_fleet;

/* ops must outlive the fleet. */
struct tw_error *tw_fleet_create(uv_loop_t *loop, const struct tw_fleet_ops *ops, void *arg,
	struct tw_fleet **out) TW_MUST_CHECK;
/* When tw_fleet_stop() is done, or nothing was started. The memory goes when the loop has run its close callbacks.
 * NULL is fine. */
void tw_fleet_destroy(struct tw_fleet *fleet);

/* From now on disks start; before, they are only kept. */
void tw_fleet_start(struct tw_fleet *fleet);
/* Watches the disk by this spec, of which a copy is kept. One that is watched by another spec ends in order first;
 * by an equal one, nothing happens. */
struct tw_error *tw_fleet_put(struct tw_fleet *fleet, const struct tw_disk_spec *spec) TW_MUST_CHECK;
/* Ends a disk in order, if there is one. for_good: see tw_watch_stop_inspecting(). */
void tw_fleet_drop(struct tw_fleet *fleet, const char *state_dir, bool for_good);
/* What waits for its time, or was given up, is tried at once. */
void tw_fleet_retry(struct tw_fleet *fleet);
/* Ends all of them: no more guest requests anywhere, then the inspectors empty their rings. */
void tw_fleet_stop(struct tw_fleet *fleet);
void tw_fleet_kill(struct tw_fleet *fleet);

size_t tw_fleet_size(const struct tw_fleet *fleet);
/* How many are live, and how many have failed. */
void tw_fleet_count(const struct tw_fleet *fleet, size_t *live, size_t *failed);
/* The disk that is watched with this state directory, NULL: none. */
const struct tw_disk_spec *tw_fleet_find(const struct tw_fleet *fleet, const char *state_dir);
/* Whether a mirror is there for the disk with this state directory, though it may be about to go. */
bool tw_fleet_is_mirrored(const struct tw_fleet *fleet, const char *state_dir);
/* Whether a disk with this state directory is about to end. */
bool tw_fleet_is_ending(const struct tw_fleet *fleet, const char *state_dir);
/* Calls each() for every disk that is watched and not about to end. */
void tw_fleet_each(const struct tw_fleet *fleet,
	void (*each)(void *arg, const struct tw_disk_spec *spec, const struct tw_report *report), void *arg);
/* Writes the status of each as one JSON object of an array. */
void tw_fleet_status(const struct tw_fleet *fleet, struct tw_json *json);

#endif
