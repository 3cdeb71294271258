/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The supervisor: one courier, one inspector for each disk, and for `tapwire serve` the nbdkit of
 * the disk. What dies is started again; SIGTERM and SIGINT end everything in order: no more guest
 * requests, the inspectors empty their rings, the courier delivers what it can. A second signal
 * ends it at once. SIGHUP reads the configuration anew.
 */
#ifndef TW_SUPERVISE_SUPERVISOR_H
#define TW_SUPERVISE_SUPERVISOR_H

#include "base/error.h"
#include "config/config.h"
#include "supervise/spec.h"
#include <stddef.h>
#include <stdbool.h>

/* What a configuration says. */
struct tw_supervisor_setup {
	const struct tw_disk_spec *disks;
	size_t ndisks;
	const struct tw_config *xen; /* watch guests' disks as this says; NULL: xenstore is none of our business */
};

struct tw_supervisor_options {
	const char *state_dir; /* the spool; exists */
	const char *run_dir;   /* the sockets; exists, locked by the caller */
	const char *config;    /* the courier's INI file */
	unsigned linger_s;     /* seconds for the courier at the end */
	const char *host;      /* this host's name, for guests' disks */
	struct tw_supervisor_setup setup;
	/* The setup as it is now; what it points to, and the one before, live until the next call. NULL: SIGHUP is
	 * not handled. */
	struct tw_error *(*reload)(void *arg, struct tw_supervisor_setup *out);
	bool embedded; /* end when a part does not even start, rather than trying for ever */
	/* All disks are live, for the first time; may be NULL. */
	void (*live)(void *arg);
	void *arg;
};

/* Runs until a signal says stop. *status is 0, or the exit status of the part that did not start:
 * that part has said why on standard error. */
struct tw_error *tw_supervise(
	const struct tw_supervisor_options *options, int *status) TW_MUST_CHECK;

#endif
