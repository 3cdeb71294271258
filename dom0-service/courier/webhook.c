/* SPDX-License-Identifier: BSD-3-Clause */
#include "courier/webhook_inside.h"


#include <stdlib.h>
#include <string.h>


/* A socket of libcurl's that the loop watches. */
struct watch {
	uv_poll_t poll;
	curl_socket_t fd;
	struct tw_webhook *hook;
};

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
		tw_endpoint_finish(endpoint, code);
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
		return tw_webhook_failed("no multi handle");
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
