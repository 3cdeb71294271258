/* SPDX-License-Identifier: BSD-3-Clause */
/* What webhook.c (libcurl's sockets and timers) and endpoint.c (requests) share. */
#ifndef TW_COURIER_WEBHOOK_INSIDE_H
#define TW_COURIER_WEBHOOK_INSIDE_H

#include "base/buf.h"
#include "courier/webhook.h"

#include <curl/curl.h>

struct tw_webhook {
	uv_loop_t *loop;
	uv_timer_t timer;
	CURLM *multi;
};

struct tw_endpoint {
	struct tw_webhook *hook;
	const struct tw_config_target *target;
	tw_webhook_done_fn done;
	void *arg;
	CURL *easy;
	struct curl_slist *headers;
	bool busy;
	struct tw_buf answer;
	struct tw_buf coded; /* the body as it is sent, when it is compressed */
	char error[256];
};

/* A request has ended. */
void tw_endpoint_finish(struct tw_endpoint *endpoint, CURLcode code);
struct tw_error *tw_webhook_failed(const char *what) TW_MUST_CHECK;

#endif
