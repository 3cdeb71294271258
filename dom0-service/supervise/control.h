/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The control socket: a Unix stream socket of the service's owner. A client sends one line, a JSON
 * object with a "command" (and for "detach", "guest" and "vdev"), and gets one line back: {"ok":true, ...} or
 * {"ok":false,"error":"..."}.
 */
#ifndef TW_SUPERVISE_CONTROL_H
#define TW_SUPERVISE_CONTROL_H

#include "base/buf.h"
#include "base/error.h"
#include <uv.h>

struct tw_control;

struct tw_question {
	char *command;
	char *guest; /* what the command is about; "" when not given */
	char *vdev;
};

/* Answers a question: appends a JSON object without a line end. An error is told to the client. */
typedef struct tw_error *(*tw_control_fn)(void *arg, const struct tw_question *question, struct tw_buf *out);

/* Listens at path; a socket that nobody serves is replaced. */
struct tw_error *tw_control_create(uv_loop_t *loop, const char *path, tw_control_fn answer,
	void *arg, struct tw_control **out) TW_MUST_CHECK;
/* Closes the socket and all clients; the memory goes when the loop has run their close callbacks.
 * NULL is fine. */
void tw_control_destroy(struct tw_control *control);

#endif
