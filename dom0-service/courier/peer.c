/* SPDX-License-Identifier: BSD-3-Clause */
#include "courier/peer.h"

#include "base/log.h"
#include "courier/envelope.h"
#include "event/event.h"
#include "link/frame.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define READ_BYTES (64u << 10)
#define TURN_BYTES (2u << 20) /* commit at the latest after so much */
#define UNSENT_MAX (8u << 20)	/* a peer that has not read so much does not keep up */
#define EPOCH_MAX 128
#define SOURCE_MAX 512
#define SEQUENCE_MAX (UINT64_C(1) << 53) /* beyond it no JSON reader counts right */

enum outcome {
	TAKEN,
	NOT_NOW, /* stays in the buffer */
	GONE,	 /* the peer was dropped */
};

struct unsent {
	uv_write_t request;
	char data[];
};

static void on_closed(uv_handle_t *handle)
{
	struct tw_peer *peer = handle->data;
	tw_buf_deinit(&peer->in);
	free(peer);
}

void tw_peer_drop(struct tw_peer *peer)
{
	if (peer->closing)
		return;
	peer->closing = true;
	struct tw_server *server = peer->server;
	for (struct tw_peer **at = &server->peers; *at; at = &(*at)->next) {
		if (*at != peer)
			continue;
		*at = peer->next;
		server->npeers--;
		break;
	}
	server->stats.inspectors -= peer->role == TW_PEER_INSPECTOR;
	server->stats.tails -= peer->role == TW_PEER_TAIL;
	uv_close((uv_handle_t *)&peer->pipe, on_closed);
}

/* The name of a peer in the log. */
static const char *subject(const struct tw_peer *peer)
{
	return peer->disk ? peer->disk->source : "";
}

static enum outcome refuse(struct tw_peer *peer, const char *why)
{
	tw_log(TW_LOG_WARN, subject(peer), "disconnected: %s", why);
	peer->server->stats.refused++;
	tw_peer_drop(peer);
	return GONE;
}

static void on_written(uv_write_t *request, int status)
{
	struct tw_peer *peer = request->handle->data;
	free(request->data);
	if (status < 0 && status != UV_ECANCELED)
		tw_peer_drop(peer);
}

void tw_peer_send(struct tw_peer *peer, const void *data, size_t len)
{
	if (peer->closing)
		return;
	uv_stream_t *stream = (uv_stream_t *)&peer->pipe;
	uv_buf_t buf = { .base = (char *)data, .len = len };
	int sent = uv_try_write(stream, &buf, 1);
	if (sent < 0 && sent != UV_EAGAIN) {
		tw_peer_drop(peer);
		return;
	}
	size_t done = sent > 0 ? (size_t)sent : 0;
	if (done == len)
		return;
	size_t rest = len - done;
	struct unsent *unsent = NULL;
	if (uv_stream_get_write_queue_size(stream) + rest <= UNSENT_MAX)
		unsent = malloc(sizeof(*unsent) + rest);
	if (!unsent) {
		refuse(peer, "it does not read what it asked for");
		return;
	}
	memcpy(unsent->data, (const char *)data + done, rest);
	unsent->request.data = unsent;
	buf = uv_buf_init(unsent->data, (unsigned int)rest);
	if (uv_write(&unsent->request, stream, &buf, 1, on_written) < 0) {
		free(unsent);
		tw_peer_drop(peer);
	}
}

/* A string of a HELLO: printable ASCII, of 1 to max bytes, with its NUL inside the body. */
static bool take_string(const char **at, const char *end, size_t max, const char **out)
{
	const char *nul = memchr(*at, '\0', (size_t)(end - *at));
	if (!nul || nul == *at || (size_t)(nul - *at) > max)
		return false;
	for (const char *c = *at; c < nul; c++)
		if ((unsigned char)*c <= ' ' || (unsigned char)*c >= 0x7f)
			return false;
	*out = *at;
	*at = nul + 1;
	return true;
}

/* A disk has one inspector: the one that came last. */
static void drop_older(struct tw_peer *peer)
{
	for (struct tw_peer *other = peer->server->peers; other;) {
		struct tw_peer *next = other->next;
		if (other != peer && other->disk == peer->disk) {
			tw_log(TW_LOG_INFO, subject(other), "disconnected: a newer inspector took over");
			tw_peer_drop(other);
		}
		other = next;
	}
}

static enum outcome spool_failed(struct tw_peer *peer, struct tw_error *err)
{
	if (tw_error_code(err) == TW_BAD_DATA && peer->role == TW_PEER_NEW) {
		/* Another disk's epoch: the peer's mistake, not the spool's. */
		enum outcome outcome = refuse(peer, tw_error_message(err));
		tw_error_destroy(err);
		return outcome;
	}
	peer->server->hooks.failed(peer->server->hooks.arg, err);
	return NOT_NOW;
}

static enum outcome take_hello(struct tw_peer *peer, const struct tw_frame *frame)
{
	const char *at = frame->body;
	const char *end = frame->body + frame->length;
	const char *epoch;
	const char *prefix;
	if (!take_string(&at, end, EPOCH_MAX, &epoch) || !take_string(&at, end, SOURCE_MAX, &prefix) ||
		at != end || *prefix != '/')
		return refuse(peer, "HELLO without an epoch and a source");
	char source[SOURCE_MAX + 1];
	size_t len = strlen(prefix);
	memcpy(source, prefix, len + 1);
	while (len > 1 && source[len - 1] == '/')
		source[--len] = '\0';
	struct tw_spool_disk *disk;
	struct tw_error *err = tw_spool_disk(peer->server->spool, epoch, source, &disk);
	if (err)
		return spool_failed(peer, err);
	peer->disk = disk;
	peer->role = TW_PEER_INSPECTOR;
	peer->greet = true;
	peer->server->stats.inspectors++;
	drop_older(peer);
	return TAKEN;
}

static enum outcome take_event(struct tw_peer *peer, const struct tw_frame *frame)
{
	struct tw_server *server = peer->server;
	if (server->hold)
		return NOT_NOW;
	if (frame->type < 1 || frame->type >= TW_EVENT_TYPE_END || frame->type == TW_EVENT_SPOOL_DROPPED)
		return refuse(peer, "EVENT of an unknown type");
	if (frame->sequence <= peer->disk->last) {
		server->taken_events++;
		server->taken_duplicates++;
		peer->answer = true;
		return TAKEN;
	}
	bool skips = !peer->disk->last && frame->sequence > 1 && frame->sequence < SEQUENCE_MAX;
	if (frame->sequence != peer->disk->last + 1 && !skips) {
		char text[96];
		snprintf(text, sizeof(text), "EVENT %" PRIu64 " after %" PRIu64, frame->sequence,
			peer->disk->last);
		return refuse(peer, text);
	}
	const struct tw_envelope envelope = {
		.source = peer->disk->source, .epoch = peer->disk->epoch, .sequence = frame->sequence
	};
	struct tw_error *err = tw_envelope_check(frame->body, frame->length, &envelope);
	if (err) {
		enum outcome outcome = refuse(peer, tw_error_message(err));
		tw_error_destroy(err);
		return outcome;
	}
	if (skips)
		err = server->hooks.skipped(server->hooks.arg, peer->disk, frame->sequence - 1);
	if (err)
		return spool_failed(peer, err);
	err = tw_spool_store(server->spool, peer->disk, frame->type, frame->body, frame->length);
	if (err)
		return spool_failed(peer, err);
	if (server->stats.tails)
		tw_frame_append(&server->tail, frame);
	server->taken_events++;
	peer->answer = true;
	return TAKEN;
}

static enum outcome answer(struct tw_peer *peer, const struct tw_frame *question)
{
	struct tw_buf body = TW_BUF_INIT;
	struct tw_buf out = TW_BUF_INIT;
	const struct tw_server_hooks *hooks = &peer->server->hooks;
	if (question->kind == TW_FRAME_STATUS)
		hooks->status(hooks->arg, &body);
	else
		hooks->command(hooks->arg, question->body, question->length, &body);
	struct tw_frame frame = {
		.kind = question->kind,
		.length = (uint32_t)body.len,
		.body = body.data,
	};
	tw_frame_append(&out, &frame);
	if (body.failed || out.failed)
		tw_peer_drop(peer);
	else
		tw_peer_send(peer, out.data, out.len);
	tw_buf_deinit(&body);
	tw_buf_deinit(&out);
	return peer->closing ? GONE : TAKEN;
}

static enum outcome take_frame(struct tw_peer *peer, const struct tw_frame *frame)
{
	bool fresh = peer->role == TW_PEER_NEW;
	switch (frame->kind) {
	case TW_FRAME_HELLO:
		return fresh ? take_hello(peer, frame) : refuse(peer, "a second HELLO");
	case TW_FRAME_EVENT:
		return peer->role == TW_PEER_INSPECTOR ? take_event(peer, frame)
						       : refuse(peer, "EVENT before HELLO");
	case TW_FRAME_TAIL:
		if (!fresh || frame->length)
			return refuse(peer, "TAIL out of place");
		peer->role = TW_PEER_TAIL;
		peer->server->stats.tails++;
		return TAKEN;
	case TW_FRAME_STATUS:
		if (peer->role == TW_PEER_INSPECTOR || frame->length)
			return refuse(peer, "STATUS out of place");
		return answer(peer, frame);
	case TW_FRAME_COMMAND:
		if (!fresh)
			return refuse(peer, "COMMAND out of place");
		return answer(peer, frame);
	default:
		return refuse(peer, "a frame that only the courier sends");
	}
}

void tw_peer_take(struct tw_peer *peer)
{
	struct tw_server *server = peer->server;
	bool any = false;
	while (!peer->closing) {
		struct tw_frame frame;
		int64_t size = tw_frame_parse(peer->in.data + peer->taken, peer->in.len - peer->taken, &frame);
		if (size < 0) {
			refuse(peer, "bytes that are no frame");
			break;
		}
		if (size == 0)
			break;
		enum outcome outcome = take_frame(peer, &frame);
		if (outcome == NOT_NOW)
			tw_peer_read(peer, false); /* what is not taken must not pile up here */
		if (outcome != TAKEN)
			break;
		any = true;
		peer->taken += (size_t)size;
		server->taken += (size_t)size;
		if (server->taken >= TURN_BYTES)
			server->hooks.changed(server->hooks.arg, server->taken, true);
	}
	if (any)
		server->hooks.changed(server->hooks.arg, server->taken, false);
}

static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *buf)
{
	(void)suggested;
	struct tw_peer *peer = handle->data;
	char *at = tw_buf_reserve(&peer->in, READ_BYTES);
	*buf = uv_buf_init(at, at ? READ_BYTES : 0);
}

static void on_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *buf)
{
	(void)buf;
	struct tw_peer *peer = stream->data;
	if (n < 0) {
		tw_peer_drop(peer);
		return;
	}
	peer->in.len += (size_t)n;
	tw_peer_take(peer);
}

void tw_peer_read(struct tw_peer *peer, bool read)
{
	if (peer->closing)
		return;
	if (read)
		uv_read_start((uv_stream_t *)&peer->pipe, on_alloc, on_read);
	else
		uv_read_stop((uv_stream_t *)&peer->pipe);
}

void tw_peer_accept(struct tw_server *server)
{
	struct tw_peer *peer = calloc(1, sizeof(*peer));
	if (!peer)
		return;
	peer->server = server;
	peer->next = server->peers;
	server->peers = peer;
	server->npeers++;
	uv_pipe_init(server->loop, &peer->pipe, 0);
	peer->pipe.data = peer;
	if (uv_accept((uv_stream_t *)&server->pipe, (uv_stream_t *)&peer->pipe) < 0)
		tw_peer_drop(peer);
	else if (server->npeers > server->most_peers)
		refuse(peer, "too many connections, raise the limit of open files (LimitNOFILE=)");
	else
		tw_peer_read(peer, true);
}
