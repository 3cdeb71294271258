/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The courier's socket (link/frame.h): inspectors bring events into the spool, tail clients get what was
 * stored, anyone may ask for the status. Every byte of a peer is hostile: a peer that breaks the protocol is
 * disconnected, with a line in the log, and nothing else happens.
 *
 * Frames of an inspector stay in its buffer until they are committed. So a commit that fails loses nothing:
 * the frames are read again later.
 */
#ifndef TW_COURIER_SERVER_H
#define TW_COURIER_SERVER_H

#include "base/buf.h"
#include "base/error.h"
#include "courier/spool.h"
#include <stdbool.h>
#include <uv.h>

struct tw_server;

struct tw_server_hooks {
	void *arg;
	/* Frames were taken, of so many bytes since the last commit: commit. now: before returning, it is much. */
	void (*changed)(void *arg, size_t bytes, bool now);
	/* The spool failed; takes err. The frame that it failed at is read again after tw_server_rewind(). */
	void (*failed)(void *arg, struct tw_error *err);
	/* A disk that this spool knows nothing of begins behind that sequence: what was before is in no spool. */
	struct tw_error *(*skipped)(void *arg, struct tw_spool_disk *disk, uint64_t sequence);
	/* Appends the JSON object that answers a STATUS frame, or a COMMAND frame with that body. */
	void (*status)(void *arg, struct tw_buf *out);
	void (*command)(void *arg, const char *body, size_t len, struct tw_buf *out);
};

struct tw_server_stats {
	uint64_t received;   /* EVENT frames */
	uint64_t stored;     /* of them committed */
	uint64_t duplicates; /* of them known before */
	uint64_t refused;    /* peers that broke the protocol */
	unsigned int inspectors;
	unsigned int tails;
};

/* Listens at path, which gets mode 0600. A socket that nobody listens at is replaced; one that is in use is
 * TW_UNAVAILABLE. Of more than most_peers connections at a time the last are refused. loop and spool are borrowed. */
struct tw_error *tw_server_create(uv_loop_t *loop, const char *path, struct tw_spool *spool,
	unsigned int most_peers, const struct tw_server_hooks *hooks, struct tw_server **out) TW_MUST_CHECK;
/* Removes the socket and closes all connections; the loop must run once more. NULL is fine. */
void tw_server_destroy(struct tw_server *server);

/* What was taken is durable: acknowledges it and hands it to the tail clients. */
void tw_server_committed(struct tw_server *server);
/* What was taken since the last commit is rolled back: it is taken again when tw_server_hold() is next
 * called with false. */
void tw_server_rewind(struct tw_server *server);
/* Stops taking events, or goes on with it. */
void tw_server_hold(struct tw_server *server, bool hold);
/* Takes no more connections and no more events, for good. */
void tw_server_stop(struct tw_server *server);
void tw_server_stats(const struct tw_server *server, struct tw_server_stats *out);

#endif
