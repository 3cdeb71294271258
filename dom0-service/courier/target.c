/* SPDX-License-Identifier: BSD-3-Clause */
#include "courier/target.h"

#include "base/log.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#define RETRY_AFTER_MAX_S 3600 /* a receiver may not silence us for longer */

enum state { IDLE, SENDING, WAITING };

struct tw_target {
	uv_loop_t *loop;
	struct tw_spool *spool;
	const struct tw_config_target *config;
	struct tw_target_hooks hooks;
	struct tw_spool_target *plan;
	struct tw_endpoint *endpoint;
	uv_timer_t retry;
	uv_timer_t delay;
	unsigned int open_handles;
	enum state state;
	uint64_t n;	   /* number and events of the batch that is under way */
	uint64_t count;
	unsigned int attempt; /* of that batch that failed */
	uint64_t since;	   /* loop time when the oldest waiting event was seen; 0: none */
	struct tw_buf body;
	uint64_t delivered;
	uint64_t batches;
	uint64_t retries;
	long last_status;
	char last_error[256];
};

enum tw_verdict tw_target_verdict(long status)
{
	return status >= 200 && status <= 299 ? TW_DELIVERED : TW_RETRY;
}

static void acknowledge(struct tw_target *target)
{
	target->state = IDLE;
	target->delivered += target->count;
	target->batches++;
	target->last_error[0] = '\0';
	if (target->attempt)
		tw_log(TW_LOG_INFO, target->config->name, "batch %" PRIu64 " delivered at attempt %u", target->n,
			target->attempt + 1);
	target->attempt = 0;
	/* A rollback can bring older batches back that were acknowledged before this one. */
	while (target->plan->nplan && target->plan->plan[0].n <= target->n) {
		struct tw_error *err = tw_spool_acknowledge(target->spool, target->plan);
		if (!err)
			continue;
		target->hooks.failed(target->hooks.arg, err);
		return;
	}
	tw_target_kick(target);
	target->hooks.changed(target->hooks.arg);
}

/* Exponential backoff with full jitter, and never before the time that the receiver asked for. */
static uint64_t retry_delay(const struct tw_target *target, const struct tw_webhook_result *result)
{
	uint64_t cap = target->config->retry_min_ms;
	for (unsigned int i = 1; i < target->attempt && cap < target->config->retry_max_ms; i++)
		cap *= 2;
	if (cap > target->config->retry_max_ms)
		cap = target->config->retry_max_ms;
	uint64_t random = 0;
	if (getrandom(&random, sizeof(random), GRND_NONBLOCK) != sizeof(random))
		random = uv_hrtime();
	uint64_t delay = random % (cap + 1);
	if (result->status != 429 && result->status != 503)
		return delay;
	int64_t asked = result->retry_after_s < RETRY_AFTER_MAX_S ? result->retry_after_s : RETRY_AFTER_MAX_S;
	return asked > 0 && (uint64_t)asked * 1000 > delay ? (uint64_t)asked * 1000 : delay;
}

static void on_retry(uv_timer_t *timer)
{
	struct tw_target *target = timer->data;
	target->state = IDLE;
	tw_target_kick(target);
}

static void retry(struct tw_target *target, const struct tw_webhook_result *result)
{
	char text[sizeof(target->last_error)];
	if (result->status)
		snprintf(text, sizeof(text), "HTTP status %ld", result->status);
	else
		snprintf(text, sizeof(text), "%s", result->error);
	target->attempt++;
	target->retries++;
	target->state = WAITING;
	uint64_t delay = retry_delay(target, result);
	/* Once for a trouble, not once an attempt. */
	if (strcmp(text, target->last_error) != 0)
		tw_log(TW_LOG_WARN, target->config->name, "batch %" PRIu64 " not delivered: %s; trying again",
			target->n, text);
	memcpy(target->last_error, text, sizeof(text));
	uv_timer_start(&target->retry, on_retry, delay, 0);
}

static void on_done(void *arg, const struct tw_webhook_result *result)
{
	struct tw_target *target = arg;
	target->last_status = result->status;
	if (tw_target_verdict(result->status) == TW_DELIVERED)
		acknowledge(target);
	else
		retry(target, result);
}

static void on_delay(uv_timer_t *timer)
{
	struct tw_target *target = timer->data;
	target->hooks.changed(target->hooks.arg);
}

struct tw_error *tw_target_create(uv_loop_t *loop, struct tw_webhook *hook, struct tw_spool *spool,
	const struct tw_config_target *config, const struct tw_target_hooks *hooks, struct tw_target **out)
{
	struct tw_target *target = calloc(1, sizeof(*target));
	if (!target)
		return tw_error_nomem();
	target->loop = loop;
	target->spool = spool;
	target->config = config;
	target->hooks = *hooks;
	struct tw_error *err = tw_spool_target(spool, config->name, config->events, &target->plan);
	if (!err)
		err = tw_endpoint_create(hook, config, on_done, target, &target->endpoint);
	if (err) {
		free(target);
		return err;
	}
	uv_timer_init(loop, &target->retry);
	uv_timer_init(loop, &target->delay);
	target->retry.data = target;
	target->delay.data = target;
	target->open_handles = 2;
	*out = target;
	return NULL;
}

static void on_closed(uv_handle_t *handle)
{
	struct tw_target *target = handle->data;
	if (--target->open_handles)
		return;
	tw_buf_deinit(&target->body);
	free(target);
}

void tw_target_destroy(struct tw_target *target)
{
	if (!target)
		return;
	tw_endpoint_destroy(target->endpoint);
	uv_close((uv_handle_t *)&target->retry, on_closed);
	uv_close((uv_handle_t *)&target->delay, on_closed);
}

/* Whether what waits is a batch in its own right. */
static bool is_full(const struct tw_target *target)
{
	return target->plan->waiting >= target->config->batch_events ||
		target->plan->waiting_bytes >= target->config->batch_bytes;
}

/* Whether a smaller batch is due; starts the timer when it will be. */
static bool is_due(struct tw_target *target)
{
	uint64_t now = uv_now(target->loop);
	if (!target->since)
		target->since = now;
	uint64_t due = target->since + target->config->batch_delay_ms;
	if (now >= due)
		return true;
	if (!uv_is_active((uv_handle_t *)&target->delay))
		uv_timer_start(&target->delay, on_delay, due - now, 0);
	return false;
}

struct tw_error *tw_target_plan(struct tw_target *target, bool flush, bool *planned)
{
	struct tw_spool_target *plan = target->plan;
	while (plan->waiting && plan->nplan < TW_SPOOL_PLAN) {
		/* While a batch is under way the next ones grow until they are full. */
		if (!is_full(target) && (plan->nplan || !(is_due(target) || flush)))
			break;
		TW_TRY(tw_spool_plan(target->spool, plan, target->config->batch_events,
			target->config->batch_bytes));
		target->since = 0;
		*planned = true;
	}
	if (!plan->waiting) {
		target->since = 0;
		uv_timer_stop(&target->delay);
	}
	return NULL;
}

static struct tw_error *send_batch(struct tw_target *target, const struct tw_spool_batch *batch)
{
	char number[TW_SPOOL_EPOCH_SIZE + 24];
	char id[TW_SPOOL_EPOCH_SIZE + 32];
	snprintf(number, sizeof(number), "%s/%" PRIu64, target->plan->epoch, batch->n);
	snprintf(id, sizeof(id), "msg_%s_%" PRIu64, target->plan->epoch, batch->n);
	tw_buf_reset(&target->body);
	TW_TRY(tw_spool_read(target->spool, batch, &target->body));
	if (target->n != batch->n)
		target->attempt = 0;
	target->n = batch->n;
	target->count = batch->count;
	return tw_endpoint_post(target->endpoint, id, number, target->body.data, target->body.len);
}

void tw_target_kick(struct tw_target *target)
{
	if (target->state != IDLE || !target->plan->nplan)
		return;
	target->state = SENDING;
	struct tw_error *err = send_batch(target, &target->plan->plan[0]);
	if (!err)
		return;
	target->state = IDLE;
	target->hooks.failed(target->hooks.arg, err);
}

bool tw_target_idle(const struct tw_target *target)
{
	return !target->plan->nplan && !target->plan->waiting;
}

void tw_target_stats(const struct tw_target *target, struct tw_target_stats *out)
{
	const struct tw_spool_target *plan = target->plan;
	*out = (struct tw_target_stats){
		.name = target->config->name,
		.epoch = plan->epoch,
		.next_batch = plan->nplan ? plan->plan[0].n : plan->next,
		.delivered = target->delivered,
		.batches = target->batches,
		.retries = target->retries,
		.backlog = plan->waiting,
		.last_status = target->last_status,
		.last_error = target->last_error,
	};
	for (unsigned int i = 0; i < plan->nplan; i++)
		out->backlog += plan->plan[i].count;
}
