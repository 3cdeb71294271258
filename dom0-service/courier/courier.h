/* SPDX-License-Identifier: BSD-3-Clause */
/* The courier as a whole: events from the inspectors' socket into the spool, and from there to the targets. */
#ifndef TW_COURIER_COURIER_H
#define TW_COURIER_COURIER_H

#include "base/error.h"
#include "config/config.h"

struct tw_courier_options {
	const char *socket; /* NULL: <run_dir>/courier.sock */
	const char *spool;  /* NULL: <state_dir>/spool.db */
	unsigned int drain_ms; /* after SIGTERM, at most this long for what is not yet delivered; 0: end at once */
};

/* Runs until SIGTERM or SIGINT, then returns NULL; what was acknowledged to an inspector is in the spool
 * by then. The socket is there (mode 0600) as soon as inspectors may connect. Needs the process's SIGPIPE to be
 * ignored. Only one in a process at a time. */
struct tw_error *tw_courier_run(const struct tw_config *config, const struct tw_courier_options *options)
	TW_MUST_CHECK;

#endif
