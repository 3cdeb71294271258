/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * One watched disk: its inspector and, when tapwire serves the image itself, the nbdkit before it.
 * The inspector has looked at the image before the first client of nbdkit can write to it: nbdkit
 * starts on a private socket, which gets its public name once the inspector is live.
 */
#ifndef TW_SUPERVISE_DISK_H
#define TW_SUPERVISE_DISK_H

#include "event/event.h"
#include "event/json.h"
#include <stdbool.h>
#include <uv.h>

struct tw_disk_spec {
	const char *name; /* for logs and status */
	const char *image;
	const char *ring;
	const char *state_dir; /* the inspector's; exists */
	const char *courier_socket;
	struct tw_disk_id id;   /* without epoch: the inspector keeps that in its state */
	const char *nbd_socket; /* serve the image here; NULL: somebody else fills the ring */
	const char *ring_size;  /* as nbdkit reads sizes, or NULL for the default */
	const char *record;     /* trace to record, or NULL */
};

struct tw_watch_ops {
	/* The disk is watched (and served), for the first time. */
	void (*live)(void *arg);
	/* A part ended with this status (see child.h) before the disk was live for the first time.
	 * Returns whether to try again. */
	bool (*failed)(void *arg, int status);
	/* After tw_watch_stop_serving and tw_watch_stop_inspecting, each. */
	void (*stopped)(void *arg);
};

struct tw_watch;

/* spec and its strings, and ops, must outlive the watch. */
struct tw_error *tw_watch_create(uv_loop_t *loop, const struct tw_disk_spec *spec,
	const struct tw_watch_ops *ops, void *arg, struct tw_watch **out) TW_MUST_CHECK;
/* Starts nbdkit, then the inspector; without nbdkit, waits for the ring to appear. */
void tw_watch_start(struct tw_watch *watch);
/* The two halves of an orderly end: no more guest requests; then the inspector empties the ring. */
void tw_watch_stop_serving(struct tw_watch *watch);
void tw_watch_stop_inspecting(struct tw_watch *watch);
void tw_watch_kill(struct tw_watch *watch);
/* See tw_child_destroy. NULL is fine. */
void tw_watch_destroy(struct tw_watch *watch);

/* Writes the disk's status as one JSON object of an array. */
void tw_watch_status(const struct tw_watch *watch, struct tw_json *json);

#endif
