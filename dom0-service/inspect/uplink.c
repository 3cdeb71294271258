/* SPDX-License-Identifier: BSD-3-Clause */
#include "inspect/uplink.h"

#include "base/log.h"
#include "link/frame.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

struct tw_uplink {
	char *socket;
	char *epoch;
	char *source;
	struct tw_outbox *box;
	int fd;
	bool welcome;
	bool complained; /* about the courier not being there: once is enough */
	struct tw_buf in;
};

struct tw_error *tw_uplink_create(const char *socket_path, const char *epoch, const char *source,
	struct tw_outbox *box, struct tw_uplink **out)
{
	struct sockaddr_un addr;
	if (strlen(socket_path) >= sizeof(addr.sun_path))
		return tw_error_create(TW_USAGE, "%s: too long for a Unix socket", socket_path);
	struct tw_uplink *link = calloc(1, sizeof(*link));
	if (!link)
		return tw_error_nomem();
	link->fd = -1;
	link->box = box;
	link->socket = strdup(socket_path);
	link->epoch = strdup(epoch);
	link->source = strdup(source);
	if (!link->socket || !link->epoch || !link->source) {
		tw_uplink_destroy(link);
		return tw_error_nomem();
	}
	*out = link;
	return NULL;
}

static void hang_up(struct tw_uplink *link)
{
	if (link->fd >= 0)
		close(link->fd);
	link->fd = -1;
	link->welcome = false;
	tw_buf_reset(&link->in);
}

void tw_uplink_destroy(struct tw_uplink *link)
{
	if (!link)
		return;
	hang_up(link);
	tw_buf_deinit(&link->in);
	free(link->socket);
	free(link->epoch);
	free(link->source);
	free(link);
}

static void broken(struct tw_uplink *link, const char *why)
{
	if (!link->complained)
		tw_log(TW_LOG_WARN, "", "courier at %s: %s; trying again", link->socket, why);
	link->complained = true;
	hang_up(link);
}

static bool dial(struct tw_uplink *link)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	strncpy(addr.sun_path, link->socket, sizeof(addr.sun_path) - 1);
	link->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (link->fd < 0 || connect(link->fd, (struct sockaddr *)&addr, sizeof(addr)) < 0) {
		broken(link, strerror(errno));
		return false;
	}
	return true;
}

/* The hello is far smaller than a socket's buffer. */
static bool say_hello(struct tw_uplink *link)
{
	struct tw_buf body = TW_BUF_INIT, out = TW_BUF_INIT;
	tw_buf_append(&body, link->epoch, strlen(link->epoch) + 1);
	tw_buf_append(&body, link->source, strlen(link->source) + 1);
	struct tw_frame frame = {(uint32_t)body.len, TW_FRAME_HELLO, 0, 0, body.data};
	tw_frame_append(&out, &frame);
	ssize_t n = send(link->fd, out.data, out.len, MSG_NOSIGNAL);
	bool ok = !out.failed && n == (ssize_t)out.len;
	if (!ok)
		broken(link, n < 0 ? strerror(errno) : "short write");
	tw_buf_deinit(&body);
	tw_buf_deinit(&out);
	return ok;
}

static bool take_frame(struct tw_uplink *link, const struct tw_frame *frame)
{
	if (frame->kind != TW_FRAME_WELCOME && frame->kind != TW_FRAME_ACK)
		return false;
	tw_outbox_ack(link->box, frame->sequence);
	if (frame->kind == TW_FRAME_WELCOME && !link->welcome) {
		link->welcome = true;
		tw_outbox_rewind(link->box);
		if (link->complained)
			tw_log(TW_LOG_INFO, "", "courier at %s: connected again", link->socket);
		link->complained = false;
	}
	return true;
}

static void receive(struct tw_uplink *link)
{
	char *at = tw_buf_reserve(&link->in, 4096);
	ssize_t n = at ? recv(link->fd, at, 4096, MSG_DONTWAIT) : -1;
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		broken(link, n ? strerror(errno) : "it hung up");
		return;
	}
	link->in.len += (size_t)n;
	struct tw_frame frame;
	int64_t size;
	while ((size = tw_frame_parse(link->in.data, link->in.len, &frame)) > 0) {
		if (!take_frame(link, &frame)) {
			size = -1;
			break;
		}
		tw_buf_consume(&link->in, (size_t)size);
	}
	if (size < 0)
		broken(link, "it does not speak the protocol");
}

static void transmit(struct tw_uplink *link)
{
	struct tw_span out;
	while (link->fd >= 0 && (out = tw_outbox_unsent(link->box)).len) {
		ssize_t n = send(link->fd, out.data, out.len, MSG_NOSIGNAL | MSG_DONTWAIT);
		if (n < 0 && (errno == EAGAIN || errno == EINTR))
			return;
		if (n < 0) {
			broken(link, strerror(errno));
			return;
		}
		tw_outbox_sent(link->box, (size_t)n);
	}
}

static int64_t now_ms(void)
{
	struct timespec ts;
	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

bool tw_uplink_connect(struct tw_uplink *link, int timeout_ms)
{
	if (link->welcome)
		return true;
	if (link->fd < 0 && (!dial(link) || !say_hello(link)))
		return false;
	int64_t end = now_ms() + timeout_ms;
	while (link->fd >= 0 && !link->welcome) {
		int64_t left = end - now_ms();
		struct pollfd pfd = {link->fd, POLLIN, 0};
		if (left < 0 || (poll(&pfd, 1, (int)left) < 0 && errno != EINTR))
			break;
		if (pfd.revents)
			receive(link);
	}
	if (!link->welcome && link->fd >= 0)
		broken(link, "no welcome");
	return link->welcome;
}

bool tw_uplink_up(const struct tw_uplink *link)
{
	return link->welcome;
}

int tw_uplink_fd(const struct tw_uplink *link)
{
	return link->fd;
}

void tw_uplink_pump(struct tw_uplink *link)
{
	if (!link->welcome)
		return;
	receive(link);
	if (link->welcome)
		transmit(link);
}
