/* SPDX-License-Identifier: BSD-3-Clause */
/* Questions to a running service over its Unix sockets, for the CLI. Calls block, at most
 * timeout_ms for each step. */
#ifndef TW_SUPERVISE_QUERY_H
#define TW_SUPERVISE_QUERY_H

#include "base/buf.h"
#include "base/error.h"
#include "link/frame.h"

/* Names of the sockets in a service's directory. */
#define TW_CONTROL_SOCKET "control.sock"
#define TW_COURIER_SOCKET "courier.sock"

/* Connects to a Unix stream socket; *fd belongs to the caller. TW_UNAVAILABLE when nobody listens.
 */
struct tw_error *tw_query_connect(const char *path, unsigned timeout_ms, int *fd) TW_MUST_CHECK;

/* The supervisor's answer to a question (control.h), a line without its end: one JSON object, NUL-terminated in out. */
struct tw_error *tw_query_ask(
	const char *socket, unsigned timeout_ms, const struct tw_buf *question, struct tw_buf *out) TW_MUST_CHECK;
/* The same for "status". */
struct tw_error *tw_query_supervisor(
	const char *socket, unsigned timeout_ms, struct tw_buf *out) TW_MUST_CHECK;
/* The courier's answer to a STATUS frame: one JSON object, NUL-terminated in out. */
struct tw_error *tw_query_courier(
	const char *socket, unsigned timeout_ms, struct tw_buf *out) TW_MUST_CHECK;

/* The courier's answer to a command (courier/admin.h): one JSON object, NUL-terminated in out. */
struct tw_error *tw_query_command(
	const char *socket, unsigned timeout_ms, const char *command, struct tw_buf *out) TW_MUST_CHECK;

/* Sends one frame without a body. */
struct tw_error *tw_query_send_frame(int fd, enum tw_frame_kind kind) TW_MUST_CHECK;
/* Reads into in, which keeps what is left over between calls, until it begins with a whole frame;
 * the frame points into in. Returns its size in *size for tw_buf_consume(), 0 when the peer has
 * closed. */
struct tw_error *tw_query_read_frame(
	int fd, struct tw_buf *in, struct tw_frame *frame, size_t *size) TW_MUST_CHECK;

/* The directory of the service to ask: the one given, or where a tapwired or a `tapwire serve` of
 * this user is found running. The caller frees *out. */
struct tw_error *tw_query_find_service(const char *given, char **out) TW_MUST_CHECK;

#endif
