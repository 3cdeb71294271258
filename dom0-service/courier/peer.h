/* SPDX-License-Identifier: BSD-3-Clause */
/* One connection of the courier's socket. Private to the server. */
#ifndef TW_COURIER_PEER_H
#define TW_COURIER_PEER_H

#include "courier/server.h"

enum tw_peer_role { TW_PEER_NEW, TW_PEER_INSPECTOR, TW_PEER_TAIL };

struct tw_peer {
	struct tw_peer *next;
	struct tw_server *server;
	uv_pipe_t pipe;
	enum tw_peer_role role;
	struct tw_spool_disk *disk; /* of an inspector */
	struct tw_buf in;
	size_t taken;  /* bytes at the front of in that wait for the commit */
	bool greet;    /* a WELCOME is due after the commit */
	bool answer;   /* an ACK is due after the commit */
	bool closing;
};

struct tw_server {
	uv_loop_t *loop;
	struct tw_spool *spool;
	struct tw_server_hooks hooks;
	uv_pipe_t pipe;
	char *path;
	struct tw_peer *peers;
	unsigned int npeers, most_peers;
	struct tw_server_stats stats;
	struct tw_buf tail;    /* frames for the tail clients, sent after the commit */
	size_t taken;	       /* bytes of all peers that wait for the commit */
	uint64_t taken_events;
	uint64_t taken_duplicates;
	bool hold;
	bool stopped;
};

/* Accepts a connection that waits at the server's socket. */
void tw_peer_accept(struct tw_server *server);
/* Takes the whole frames that have arrived. */
void tw_peer_take(struct tw_peer *peer);
/* Reads on, or not. */
void tw_peer_read(struct tw_peer *peer, bool read);
/* Sends bytes, which are copied. A peer that does not read its answers is dropped. */
void tw_peer_send(struct tw_peer *peer, const void *data, size_t len);
/* Disconnects; the peer is freed later. */
void tw_peer_drop(struct tw_peer *peer);

#endif
