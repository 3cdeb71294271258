/* SPDX-License-Identifier: BSD-3-Clause */
#include "courier/webhook.h"

#include "base/scope.h"
#include "courier/sign.h"

#include <curl/curl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#define ANSWER_MAX (1u << 20)

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
	size_t answer_bytes;
	char error[256];
};

/* A socket of libcurl's that the loop watches. */
struct watch {
	uv_poll_t poll;
	curl_socket_t fd;
	struct tw_webhook *hook;
};

static struct tw_error *curl_failed(const char *what)
{
	return tw_error_create(TW_UNAVAILABLE, "libcurl: %s", what);
}

/* Why there was no answer, without what differs from one attempt to the next. */
static const char *reason(struct tw_endpoint *endpoint, CURLcode code)
{
	long errnum = 0;
	curl_easy_getinfo(endpoint->easy, CURLINFO_OS_ERRNO, &errnum);
	if (!errnum)
		return curl_easy_strerror(code);
	snprintf(endpoint->error, sizeof(endpoint->error), "%s: %s", curl_easy_strerror(code),
		strerror((int)errnum));
	return endpoint->error;
}

static void finish(struct tw_endpoint *endpoint, CURLcode code)
{
	struct tw_webhook_result result = { .error = "" };
	endpoint->busy = false;
	if (code == CURLE_OK) {
		curl_off_t after = 0;
		curl_easy_getinfo(endpoint->easy, CURLINFO_RESPONSE_CODE, &result.status);
		curl_easy_getinfo(endpoint->easy, CURLINFO_RETRY_AFTER, &after);
		result.retry_after_s = after;
	} else {
		result.error = reason(endpoint, code);
	}
	endpoint->done(endpoint->arg, &result);
}

static void finish_all(struct tw_webhook *hook)
{
	int left;
	for (CURLMsg *msg; (msg = curl_multi_info_read(hook->multi, &left));) {
		if (msg->msg != CURLMSG_DONE)
			continue;
		CURL *easy = msg->easy_handle;
		CURLcode code = msg->data.result;
		struct tw_endpoint *endpoint = NULL;
		curl_easy_getinfo(easy, CURLINFO_PRIVATE, &endpoint);
		curl_multi_remove_handle(hook->multi, easy);
		finish(endpoint, code);
	}
}

static void on_poll(uv_poll_t *poll, int status, int events)
{
	struct watch *watch = poll->data;
	struct tw_webhook *hook = watch->hook;
	int flags = status < 0 ? CURL_CSELECT_ERR : 0;
	if (events & UV_READABLE)
		flags |= CURL_CSELECT_IN;
	if (events & UV_WRITABLE)
		flags |= CURL_CSELECT_OUT;
	int running;
	curl_multi_socket_action(hook->multi, watch->fd, flags, &running);
	finish_all(hook);
}

static void on_timer(uv_timer_t *timer)
{
	struct tw_webhook *hook = timer->data;
	int running;
	curl_multi_socket_action(hook->multi, CURL_SOCKET_TIMEOUT, 0, &running);
	finish_all(hook);
}

static int set_timer(CURLM *multi, long ms, void *arg)
{
	(void)multi;
	struct tw_webhook *hook = arg;
	if (ms < 0)
		uv_timer_stop(&hook->timer);
	else
		uv_timer_start(&hook->timer, on_timer, (uint64_t)ms, 0);
	return 0;
}

static void free_watch(uv_handle_t *handle)
{
	free(handle->data);
}

static struct watch *add_watch(struct tw_webhook *hook, curl_socket_t fd)
{
	struct watch *watch = calloc(1, sizeof(*watch));
	if (!watch)
		return NULL;
	watch->fd = fd;
	watch->hook = hook;
	if (uv_poll_init_socket(hook->loop, &watch->poll, fd) < 0) {
		free(watch);
		return NULL;
	}
	watch->poll.data = watch;
	curl_multi_assign(hook->multi, fd, watch);
	return watch;
}

static int set_socket(CURL *easy, curl_socket_t fd, int what, void *arg, void *assigned)
{
	(void)easy;
	struct tw_webhook *hook = arg;
	struct watch *watch = assigned;
	if (what == CURL_POLL_REMOVE) {
		if (!watch)
			return 0;
		uv_poll_stop(&watch->poll);
		curl_multi_assign(hook->multi, fd, NULL);
		uv_close((uv_handle_t *)&watch->poll, free_watch);
		return 0;
	}
	if (!watch)
		watch = add_watch(hook, fd);
	if (!watch)
		return -1;
	int events = (what & CURL_POLL_IN ? UV_READABLE : 0) | (what & CURL_POLL_OUT ? UV_WRITABLE : 0);
	return uv_poll_start(&watch->poll, events, on_poll) < 0 ? -1 : 0;
}

struct tw_error *tw_webhook_create(uv_loop_t *loop, struct tw_webhook **out)
{
	struct tw_webhook *hook = calloc(1, sizeof(*hook));
	if (!hook)
		return tw_error_nomem();
	hook->loop = loop;
	hook->multi = curl_multi_init();
	if (!hook->multi) {
		free(hook);
		return curl_failed("no multi handle");
	}
	uv_timer_init(loop, &hook->timer);
	hook->timer.data = hook;
	curl_multi_setopt(hook->multi, CURLMOPT_SOCKETFUNCTION, set_socket);
	curl_multi_setopt(hook->multi, CURLMOPT_SOCKETDATA, hook);
	curl_multi_setopt(hook->multi, CURLMOPT_TIMERFUNCTION, set_timer);
	curl_multi_setopt(hook->multi, CURLMOPT_TIMERDATA, hook);
	*out = hook;
	return NULL;
}

void tw_webhook_destroy(struct tw_webhook *hook)
{
	if (!hook)
		return;
	curl_multi_cleanup(hook->multi);
	uv_close((uv_handle_t *)&hook->timer, free_watch);
}

/* What the answer's body says is nobody's business; one without end is an error. */
static size_t swallow(char *data, size_t size, size_t n, void *arg)
{
	(void)data;
	struct tw_endpoint *endpoint = arg;
	endpoint->answer_bytes += size * n;
	return endpoint->answer_bytes > ANSWER_MAX ? 0 : size * n;
}

static void set_options(struct tw_endpoint *endpoint)
{
	const struct tw_config_target *target = endpoint->target;
	CURL *easy = endpoint->easy;
	curl_easy_setopt(easy, CURLOPT_PRIVATE, endpoint);
	curl_easy_setopt(easy, CURLOPT_URL, target->url);
	curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
	curl_easy_setopt(easy, CURLOPT_PROXY, ""); /* none, whatever the environment says */
	curl_easy_setopt(easy, CURLOPT_FOLLOWLOCATION, 0L);
	curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(easy, CURLOPT_TCP_NODELAY, 1L);
	curl_easy_setopt(easy, CURLOPT_TCP_KEEPALIVE, 1L);
	curl_easy_setopt(easy, CURLOPT_USERAGENT, "tapwire/" TW_VERSION);
	curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS, (long)target->timeout_ms);
	curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, (long)target->connect_timeout_ms);
	curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, swallow);
	curl_easy_setopt(easy, CURLOPT_WRITEDATA, endpoint);
	if (target->ca_file)
		curl_easy_setopt(easy, CURLOPT_CAINFO, target->ca_file);
}

struct tw_error *tw_endpoint_create(struct tw_webhook *hook, const struct tw_config_target *target,
	tw_webhook_done_fn done, void *arg, struct tw_endpoint **out)
{
	struct tw_endpoint *endpoint = calloc(1, sizeof(*endpoint));
	if (!endpoint)
		return tw_error_nomem();
	endpoint->hook = hook;
	endpoint->target = target;
	endpoint->done = done;
	endpoint->arg = arg;
	endpoint->easy = curl_easy_init();
	if (!endpoint->easy) {
		free(endpoint);
		return curl_failed("no easy handle");
	}
	set_options(endpoint);
	*out = endpoint;
	return NULL;
}

void tw_endpoint_destroy(struct tw_endpoint *endpoint)
{
	if (!endpoint)
		return;
	if (endpoint->busy)
		curl_multi_remove_handle(endpoint->hook->multi, endpoint->easy);
	curl_easy_cleanup(endpoint->easy);
	curl_slist_free_all(endpoint->headers);
	free(endpoint);
}

static struct tw_error *add_header(struct tw_endpoint *endpoint, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));

static struct tw_error *add_header(struct tw_endpoint *endpoint, const char *fmt, ...)
{
	TW_AUTO_FREE char *text = NULL;
	va_list ap;
	va_start(ap, fmt);
	int len = vasprintf(&text, fmt, ap);
	va_end(ap);
	if (len < 0) {
		text = NULL;
		return tw_error_nomem();
	}
	struct curl_slist *grown = curl_slist_append(endpoint->headers, text);
	if (!grown)
		return tw_error_nomem();
	endpoint->headers = grown;
	return NULL;
}

static struct tw_error *add_headers(struct tw_endpoint *endpoint, const char *id, const char *batch,
	const char *body, size_t len)
{
	const struct tw_config_target *target = endpoint->target;
	int64_t now = time(NULL);
	curl_slist_free_all(endpoint->headers);
	endpoint->headers = NULL;
	TW_TRY(add_header(endpoint, "Content-Type: application/cloudevents-batch+json"));
	TW_TRY(add_header(endpoint, "Expect:")); /* not a round trip more for a large batch */
	TW_TRY(add_header(endpoint, "Tapwire-Batch: %s", batch));
	TW_TRY(add_header(endpoint, "webhook-id: %s", id));
	TW_TRY(add_header(endpoint, "webhook-timestamp: %lld", (long long)now));
	if (target->secret) {
		char signature[TW_SIGNATURE_SIZE];
		TW_TRY(tw_sign(target->secret, target->secret_len, id, now, body, len, signature));
		TW_TRY(add_header(endpoint, "webhook-signature: %s", signature));
	}
	if (target->bearer_token)
		TW_TRY(add_header(endpoint, "Authorization: Bearer %s", target->bearer_token));
	for (size_t i = 0; i < target->nheaders; i++)
		TW_TRY(add_header(endpoint, "%s", target->headers[i]));
	return NULL;
}

struct tw_error *tw_endpoint_post(struct tw_endpoint *endpoint, const char *id, const char *batch,
	const char *body, size_t len)
{
	TW_TRY(add_headers(endpoint, id, batch, body, len));
	endpoint->answer_bytes = 0;
	curl_easy_setopt(endpoint->easy, CURLOPT_HTTPHEADER, endpoint->headers);
	curl_easy_setopt(endpoint->easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)len);
	curl_easy_setopt(endpoint->easy, CURLOPT_POSTFIELDS, body);
	CURLMcode code = curl_multi_add_handle(endpoint->hook->multi, endpoint->easy);
	if (code != CURLM_OK)
		return curl_failed(curl_multi_strerror(code));
	endpoint->busy = true;
	return NULL;
}
