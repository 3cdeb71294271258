/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The live inspector: from the ring to the courier, with a state that survives being killed.
 *
 * A record is logged before its space in the ring is given back, and replaying the log gives the
 * same events with the same numbers; so at any moment everything that is not durable at the courier
 * is in the ring, in the log, or in the snapshot.
 */
#ifndef TW_INSPECT_LIVE_H
#define TW_INSPECT_LIVE_H

#include "base/error.h"
#include "event/event.h"
#include <stdbool.h>

struct tw_live;

struct tw_live_options {
	const char *image;
	const char *ring;     /* path */
	const char *courier;  /* path of its socket */
	const char *state;    /* directory */
	int status_fd;        /* gets a line when the status has changed; -1: nobody wants it */
	struct tw_disk_id id; /* epoch: NULL; it comes from the state */
	/* The ring is a sink's (tapdisk-plugin/sink.h): a record may be ahead of the image, and each
	 * session has a ring of its own. */
	bool mirror;
	const char *content; /* of which files events carry content (content/rules.h); NULL: of none */
};

/* The strings of options live as long as the inspector. */
struct tw_error *tw_live_create(
	const struct tw_live_options *options, struct tw_live **out) TW_MUST_CHECK;
void tw_live_destroy(struct tw_live *live);

/* Loads the state or crawls the disk. Afterwards every write that comes is followed. Gives up with
 * TW_UNAVAILABLE when stop_fd becomes readable. */
struct tw_error *tw_live_start(struct tw_live *live, int stop_fd) TW_MUST_CHECK;

/* Follows the ring until stop_fd is readable, then drains it, saves the state and returns. */
struct tw_error *tw_live_run(struct tw_live *live, int stop_fd) TW_MUST_CHECK;

#endif
