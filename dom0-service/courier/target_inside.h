/* SPDX-License-Identifier: BSD-3-Clause */
/* What target.c and sender.c share. */
#ifndef TW_COURIER_TARGET_INSIDE_H
#define TW_COURIER_TARGET_INSIDE_H

#include "courier/filter.h"
#include "courier/limit.h"
#include "courier/target.h"

enum tw_sender_state { TW_SENDER_IDLE, TW_SENDER_SENDING, TW_SENDER_WAITING };

/* A lane at work. */
struct tw_sender {
	struct tw_target *target;
	unsigned int index;
	struct tw_endpoint *endpoint;
	bool renew; /* the endpoint has the settings of before */
	uv_timer_t retry;
	uv_timer_t delay;
	enum tw_sender_state state;
	uint64_t n;     /* number and events of the batch that is under way */
	uint64_t count;
	enum tw_format format;
	uint64_t sent_at; /* loop time */
	unsigned int attempt; /* that failed since the last batch that was acknowledged */
	uint64_t since; /* loop time when the oldest waiting event was seen; 0: none */
	struct tw_buf body;
	/* While a refused batch is taken apart: */
	uint64_t piece_events; /* a batch has no more, up to piece_until; 0: no such bound */
	int64_t piece_until;
	bool accepted;	       /* something was, since the refusal */
	int64_t again_ms; /* begin again with what has come in since then; 0: go on */
	unsigned int window;   /* so many events are tried alone before the target is thought to refuse all */
};

struct tw_target {
	uv_loop_t *loop;
	struct tw_webhook *hook;
	struct tw_spool *spool;
	const struct tw_config_target *config;
	struct tw_target_hooks hooks;
	struct tw_filter *filter;
	struct tw_spool_target *plan;
	struct tw_sender *senders[TW_SPOOL_LANES];
	unsigned int nsenders;
	unsigned int next_sender; /* who is asked first */
	unsigned int open_handles;
	unsigned int under_way;
	bool destroyed;
	bool trusted; /* it has accepted something since an event was given up without such evidence */
	uint64_t bytes_max; /* a batch that was longer was answered with 413; 0: none was */
	struct tw_limit limit;
	uint64_t delivered;
	uint64_t batches;
	uint64_t retries;
	long last_status;
	char last_error[256];
};

struct tw_error *tw_sender_create(struct tw_target *target, unsigned int index, struct tw_sender **out)
	TW_MUST_CHECK;
/* Gives it an endpoint with the settings of now, unless a request is under way. */
struct tw_error *tw_sender_renew(struct tw_sender *sender) TW_MUST_CHECK;
/* The target is freed with its last sender. */
void tw_sender_destroy(struct tw_sender *sender);
struct tw_spool_lane *tw_sender_lane(const struct tw_sender *sender);
/* See tw_target_plan(). */
struct tw_error *tw_sender_plan(struct tw_sender *sender, bool flush, bool *planned, bool *more)
	TW_MUST_CHECK;
/* Whether it has a batch to send and does not wait. */
bool tw_sender_ready(const struct tw_sender *sender);
void tw_sender_send(struct tw_sender *sender);

#endif
