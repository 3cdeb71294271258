/* SPDX-License-Identifier: BSD-3-Clause */
/* POSTs over HTTP: libcurl's multi interface driven by a libuv loop. An endpoint has one request at a time, so
 * that batches arrive in order; its connection stays open for the next one. */
#ifndef TW_COURIER_WEBHOOK_H
#define TW_COURIER_WEBHOOK_H

#include "base/error.h"
#include "config/config.h"
#include <stdint.h>
#include <uv.h>

struct tw_webhook;
struct tw_endpoint;

struct tw_webhook_result {
	long status;	       /* of HTTP; 0 when there was no whole answer */
	int64_t retry_after_s; /* what the answer asks for, 0: nothing */
	const char *error;     /* one line when status is 0; lives until the callback returns */
	const char *answer;    /* what the body says; lives until the callback returns */
	size_t answer_len;
};

struct tw_post {
	const char *url;    /* NULL: the target's own */
	const char *type;   /* Content-Type */
	const char *id;	    /* webhook-id */
	const char *batch;  /* Tapwire-Batch */
	uint64_t previous;  /* Tapwire-Previous */
	const char *body;   /* borrowed until the callback */
	size_t len;
};

/* Called once for each tw_endpoint_post() that returned NULL, never from within it. May post again. */
typedef void (*tw_webhook_done_fn)(void *arg, const struct tw_webhook_result *result);

/* The loop is borrowed and outlives the webhook. */
struct tw_error *tw_webhook_create(uv_loop_t *loop, struct tw_webhook **out) TW_MUST_CHECK;
/* Frees it after all its endpoints; the loop must run once more for its handles to close. NULL is fine. */
void tw_webhook_destroy(struct tw_webhook *hook);

/* target is borrowed and outlives the endpoint. */
struct tw_error *tw_endpoint_create(struct tw_webhook *hook, const struct tw_config_target *target,
	tw_webhook_done_fn done, void *arg, struct tw_endpoint **out) TW_MUST_CHECK;
/* Cancels a request under way, without its callback. NULL is fine. */
void tw_endpoint_destroy(struct tw_endpoint *endpoint);

/* Sends a request. */
struct tw_error *tw_endpoint_post(struct tw_endpoint *endpoint, const struct tw_post *post) TW_MUST_CHECK;

#endif
