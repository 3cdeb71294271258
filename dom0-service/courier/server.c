/* SPDX-License-Identifier: BSD-3-Clause */
#include "courier/server.h"

#include "base/log.h"
#include "base/scope.h"
#include "courier/peer.h"
#include "link/frame.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#define BACKLOG 1024 /* all inspectors of a host come at once when the courier was started again */

static struct tw_error *socket_address(const char *path, struct sockaddr_un *out)
{
	*out = (struct sockaddr_un){ .sun_family = AF_UNIX };
	if (strlen(path) >= sizeof(out->sun_path))
		return tw_error_create(TW_USAGE, "socket path %s is longer than %zu bytes", path,
			sizeof(out->sun_path) - 1);
	strcpy(out->sun_path, path);
	return NULL;
}

/* Removes a socket that a dead courier left behind, and nothing else. */
static struct tw_error *remove_stale(const char *path, const struct sockaddr_un *address)
{
	struct stat st;
	if (lstat(path, &st) < 0)
		return errno == ENOENT ? NULL : tw_error_errno(errno, "%s", path);
	if (!S_ISSOCK(st.st_mode))
		return tw_error_create(TW_UNAVAILABLE, "%s is there and is no socket", path);
	TW_AUTO_CLOSE int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return tw_error_errno(errno, "socket");
	if (connect(fd, (const struct sockaddr *)address, sizeof(*address)) == 0 || errno == EAGAIN)
		return tw_error_create(TW_UNAVAILABLE, "%s is in use by another courier", path);
	if (unlink(path) < 0 && errno != ENOENT)
		return tw_error_errno(errno, "%s", path);
	return NULL;
}

static struct tw_error *bind_socket(const char *path, int *out)
{
	struct sockaddr_un address;
	TW_TRY(socket_address(path, &address));
	TW_TRY(remove_stale(path, &address));
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return tw_error_errno(errno, "socket");
	mode_t mask = umask(0177);
	int rc = bind(fd, (const struct sockaddr *)&address, sizeof(address));
	int errnum = errno;
	umask(mask);
	if (rc < 0) {
		close(fd);
		return tw_error_errno(errnum, "socket %s", path);
	}
	*out = fd;
	return NULL;
}

static void on_connection(uv_stream_t *stream, int status)
{
	struct tw_server *server = stream->data;
	if (status < 0)
		tw_log(TW_LOG_WARN, "", "cannot accept a connection: %s", uv_strerror(status));
	else
		tw_peer_accept(server);
}

static void on_closed(uv_handle_t *handle)
{
	struct tw_server *server = handle->data;
	tw_buf_deinit(&server->tail);
	free(server->path);
	free(server);
}

struct tw_error *tw_server_create(uv_loop_t *loop, const char *path, struct tw_spool *spool,
	unsigned int most_peers, const struct tw_server_hooks *hooks, struct tw_server **out)
{
	int fd;
	TW_TRY(bind_socket(path, &fd));
	struct tw_server *server = calloc(1, sizeof(*server));
	char *copy = strdup(path);
	if (!server || !copy) {
		close(fd);
		free(server);
		free(copy);
		return tw_error_nomem();
	}
	server->loop = loop;
	server->path = copy;
	server->spool = spool;
	server->hooks = *hooks;
	server->most_peers = most_peers;
	uv_pipe_init(loop, &server->pipe, 0);
	server->pipe.data = server;
	int rc = uv_pipe_open(&server->pipe, fd);
	if (rc == 0)
		rc = uv_listen((uv_stream_t *)&server->pipe, BACKLOG, on_connection);
	if (rc < 0) {
		tw_server_destroy(server);
		return tw_error_errno(rc, "socket %s", path);
	}
	*out = server;
	return NULL;
}

void tw_server_destroy(struct tw_server *server)
{
	if (!server)
		return;
	unlink(server->path);
	while (server->peers)
		tw_peer_drop(server->peers);
	uv_close((uv_handle_t *)&server->pipe, on_closed);
}

static void send_sequence(struct tw_peer *peer, enum tw_frame_kind kind)
{
	char bytes[TW_FRAME_HEADER_BYTES];
	struct tw_buf out = { .data = bytes, .cap = sizeof(bytes) };
	struct tw_frame frame = { .kind = (uint16_t)kind, .sequence = peer->disk->last };
	tw_frame_append(&out, &frame);
	tw_peer_send(peer, out.data, out.len);
}

void tw_server_committed(struct tw_server *server)
{
	for (struct tw_peer *peer = server->peers; peer;) {
		struct tw_peer *next = peer->next;
		tw_buf_consume(&peer->in, peer->taken);
		peer->taken = 0;
		bool greet = peer->greet;
		bool answer = peer->answer;
		peer->greet = peer->answer = false;
		if (greet)
			send_sequence(peer, TW_FRAME_WELCOME);
		if (answer)
			send_sequence(peer, TW_FRAME_ACK);
		if (peer->role == TW_PEER_TAIL && server->tail.len)
			tw_peer_send(peer, server->tail.data, server->tail.len);
		peer = next;
	}
	tw_buf_reset(&server->tail);
	server->stats.received += server->taken_events;
	server->stats.duplicates += server->taken_duplicates;
	server->stats.stored += server->taken_events - server->taken_duplicates;
	server->taken = 0;
	server->taken_events = 0;
	server->taken_duplicates = 0;
}

void tw_server_rewind(struct tw_server *server)
{
	for (struct tw_peer *peer = server->peers; peer; peer = peer->next) {
		peer->taken = 0;
		peer->answer = false;
		if (!peer->greet)
			continue;
		peer->greet = false;
		peer->role = TW_PEER_NEW;
		peer->disk = NULL;
		server->stats.inspectors--;
	}
	tw_buf_reset(&server->tail);
	server->taken = 0;
	server->taken_events = 0;
	server->taken_duplicates = 0;
}

void tw_server_hold(struct tw_server *server, bool hold)
{
	if (server->stopped || server->hold == hold)
		return;
	server->hold = hold;
	for (struct tw_peer *peer = server->peers; peer;) {
		struct tw_peer *next = peer->next;
		tw_peer_read(peer, !hold || peer->role != TW_PEER_INSPECTOR);
		if (!hold)
			tw_peer_take(peer);
		peer = next;
	}
}

void tw_server_stop(struct tw_server *server)
{
	tw_server_hold(server, true);
	server->stopped = true;
	unlink(server->path);
}

void tw_server_stats(const struct tw_server *server, struct tw_server_stats *out)
{
	*out = server->stats;
}
