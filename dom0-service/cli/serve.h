/* SPDX-License-Identifier: BSD-3-Clause */
/* `tapwire serve` and `attach`: one image, watched without Xen's help; served, too, or by a tapdisk. */
#ifndef TW_CLI_SERVE_H
#define TW_CLI_SERVE_H

#include "base/error.h"
#include "event/event.h"

struct tw_serve {
	const char *image;
	const char *socket;      /* NULL: nbd.sock in state_dir */
	const char *config;      /* NULL: post and secret_file say it all */
	const char *post;        /* NULL: no target */
	const char *secret_file; /* may be NULL */
	const char *state_dir;   /* NULL: the default of this user */
	const char *ring_size;   /* as nbdkit reads sizes; NULL: the default */
	const char *record;      /* a trace that must not exist yet, or NULL */
	const char *tapdisk;     /* it serves the image: "auto" or PID:MINOR; NULL: nbdkit does, here */
	const char *tap_ctl;     /* with tapdisk; as do the next two, supervise/mirror.h has them */
	unsigned stall_ms;
	unsigned tries;
	unsigned linger_s;
	struct tw_disk_id id;
	void (*ready)(void *arg, const char *socket); /* socket NULL with tapdisk */
	void *arg;
};

/* Runs until a signal; *status as tw_supervise() has it. */
struct tw_error *tw_serve(const struct tw_serve *serve, int *status) TW_MUST_CHECK;

#endif
