/* SPDX-License-Identifier: BSD-3-Clause */
#include "supervise/query.h"
#include "base/scope.h"
#include "supervise/paths.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#define ANSWER_MAX (8u << 20)
#define SERVICE_RUN_DIR "/run/tapwire"

struct tw_error *tw_query_connect(const char *path, unsigned timeout_ms, int *fd)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	struct timeval limit = { timeout_ms / 1000, (timeout_ms % 1000) * 1000 };
	TW_TRY(tw_path_check_socket(path));
	strcpy(addr.sun_path, path);
	TW_AUTO_CLOSE int sock = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (sock < 0)
		return tw_error_errno(errno, "socket");
	if (timeout_ms &&
		(setsockopt(sock, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit)) < 0 ||
			setsockopt(sock, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit)) < 0))
		return tw_error_errno(errno, "setsockopt");
	if (connect(sock, (struct sockaddr *)&addr, sizeof(addr)) < 0) {
		if (errno == ENOENT || errno == ECONNREFUSED || errno == EAGAIN)
			return tw_error_create(
				TW_UNAVAILABLE, "%s: no service answers there", path);
		return tw_error_errno(errno, "%s", path);
	}
	*fd = sock;
	sock = -1;
	return NULL;
}

static struct tw_error *send_all(int fd, const char *data, size_t n)
{
	while (n) {
		ssize_t sent = send(fd, data, n, MSG_NOSIGNAL);
		if (sent < 0 && errno == EINTR)
			continue;
		if (sent < 0)
			return tw_error_errno(errno, "the service's socket");
		data += sent;
		n -= (size_t)sent;
	}
	return NULL;
}

/* Appends what one read gives; *got is 0 at the end of the stream. */
static struct tw_error *read_some(int fd, struct tw_buf *in, size_t *got)
{
	const size_t step = 65536;
	if (in->len > ANSWER_MAX + TW_FRAME_HEADER_BYTES)
		return tw_error_create(
			TW_BAD_DATA, "the service's answer is longer than %u bytes", ANSWER_MAX);
	void *at = tw_buf_reserve(in, step);
	if (!at)
		return tw_error_nomem();
	ssize_t n;
	do
		n = recv(fd, at, step, 0);
	while (n < 0 && errno == EINTR);
	if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
		return tw_error_create(TW_UNAVAILABLE, "the service does not answer in time");
	if (n < 0)
		return tw_error_errno(errno, "the service's socket");
	in->len += (size_t)n;
	*got = (size_t)n;
	return NULL;
}

struct tw_error *tw_query_ask(
	const char *socket_path, unsigned timeout_ms, const struct tw_buf *question, struct tw_buf *out)
{
	TW_AUTO_CLOSE int fd = -1;
	TW_TRY(tw_query_connect(socket_path, timeout_ms, &fd));
	TW_TRY(send_all(fd, question->data, question->len));
	TW_TRY(send_all(fd, "\n", 1));
	size_t got = 1;
	while (!out->len || out->data[out->len - 1] != '\n') {
		TW_TRY(read_some(fd, out, &got));
		if (!got)
			return tw_error_create(
				TW_UNAVAILABLE, "%s: closed without an answer", socket_path);
	}
	out->data[out->len - 1] = '\0';
	return NULL;
}

struct tw_error *tw_query_supervisor(
	const char *socket_path, unsigned timeout_ms, struct tw_buf *out)
{
	struct tw_buf question = TW_BUF_INIT;
	tw_buf_puts(&question, "{\"command\":\"status\"}");
	struct tw_error *err =
		question.failed ? tw_error_nomem() : tw_query_ask(socket_path, timeout_ms, &question, out);
	tw_buf_deinit(&question);
	return err;
}

static struct tw_error *send_frame(int fd, enum tw_frame_kind kind, const char *body)
{
	struct tw_buf out = TW_BUF_INIT;
	const struct tw_frame frame = {
		.kind = (uint16_t)kind, .length = (uint32_t)strlen(body), .body = body
	};
	tw_frame_append(&out, &frame);
	struct tw_error *err = out.failed ? tw_error_nomem() : send_all(fd, out.data, out.len);
	tw_buf_deinit(&out);
	return err;
}

struct tw_error *tw_query_send_frame(int fd, enum tw_frame_kind kind)
{
	return send_frame(fd, kind, "");
}

struct tw_error *tw_query_read_frame(
	int fd, struct tw_buf *in, struct tw_frame *frame, size_t *size)
{
	for (;;) {
		int64_t parsed = tw_frame_parse(in->data, in->len, frame);
		if (parsed < 0)
			return tw_error_create(TW_BAD_DATA, "the courier's answer is no frame");
		*size = (size_t)parsed;
		if (parsed)
			return NULL;
		size_t got;
		TW_TRY(read_some(fd, in, &got));
		if (!got)
			return NULL;
	}
}

static struct tw_error *ask_courier(int fd, enum tw_frame_kind kind, const char *body, struct tw_buf *in,
	struct tw_buf *out)
{
	struct tw_frame frame;
	size_t size;
	TW_TRY(send_frame(fd, kind, body));
	TW_TRY(tw_query_read_frame(fd, in, &frame, &size));
	if (!size || frame.kind != kind)
		return tw_error_create(TW_UNAVAILABLE, "the courier gave no answer");
	tw_buf_append(out, frame.body, frame.length);
	tw_buf_append(out, "", 1);
	return out->failed ? tw_error_nomem() : NULL;
}

static struct tw_error *query(const char *socket_path, unsigned timeout_ms, enum tw_frame_kind kind,
	const char *body, struct tw_buf *out)
{
	TW_AUTO_CLOSE int fd = -1;
	TW_TRY(tw_query_connect(socket_path, timeout_ms, &fd));
	struct tw_buf in = TW_BUF_INIT;
	struct tw_error *err = ask_courier(fd, kind, body, &in, out);
	tw_buf_deinit(&in);
	return err;
}

struct tw_error *tw_query_courier(const char *socket_path, unsigned timeout_ms, struct tw_buf *out)
{
	return query(socket_path, timeout_ms, TW_FRAME_STATUS, "", out);
}

struct tw_error *tw_query_command(
	const char *socket_path, unsigned timeout_ms, const char *command, struct tw_buf *out)
{
	return query(socket_path, timeout_ms, TW_FRAME_COMMAND, command, out);
}

static bool answers(const char *dir)
{
	TW_AUTO_FREE char *path = tw_path_join(dir, TW_CONTROL_SOCKET);
	TW_AUTO_CLOSE int fd = -1;
	struct tw_error *err = path ? tw_query_connect(path, 1000, &fd) : tw_error_nomem();
	bool ok = !err;
	tw_error_destroy(err);
	return ok;
}

struct tw_error *tw_query_find_service(const char *given, char **out)
{
	TW_AUTO_FREE char *serve = NULL;
	if (!given)
		TW_TRY(tw_path_serve_state(&serve));
	const char *dir = given ? given : answers(SERVICE_RUN_DIR) ? SERVICE_RUN_DIR : serve;
	if (!given && dir == serve && !answers(serve))
		return tw_error_create(TW_UNAVAILABLE,
			"no service runs in %s or %s; --state names another directory",
			SERVICE_RUN_DIR, serve);
	*out = strdup(dir);
	return *out ? NULL : tw_error_nomem();
}
