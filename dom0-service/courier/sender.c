/* SPDX-License-Identifier: BSD-3-Clause */
#include "courier/target_inside.h"

#include "base/log.h"
#include "base/scope.h"
#include "courier/format.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#define RETRY_AFTER_MAX_S 3600 /* a receiver may not silence us for longer */
#define WINDOW_MIN 4	       /* events that are tried alone; doubles each time they are all refused */
#define WINDOW_MAX 256
#define PATIENCE 3   /* tries before a status that is about the sender is taken for one about an event */
#define LONE_TRIES 3 /* of an event that is refused and has none behind it */

struct tw_spool_lane *tw_sender_lane(const struct tw_sender *sender)
{
	return sender->target->plan->lanes[sender->index];
}

static void failed(struct tw_sender *sender, struct tw_error *err)
{
	sender->target->hooks.failed(sender->target->hooks.arg, err);
}

static void changed(struct tw_sender *sender)
{
	sender->target->hooks.changed(sender->target->hooks.arg);
}

/* --- sent again --- */

/* Exponential backoff with full jitter, and never before the time that the receiver asked for. */
static uint64_t retry_delay(const struct tw_sender *sender, const struct tw_webhook_result *result)
{
	const struct tw_config_target *config = sender->target->config;
	uint64_t cap = config->retry_min_ms;
	for (unsigned int i = 1; i < sender->attempt && cap < config->retry_max_ms; i++)
		cap *= 2;
	if (cap > config->retry_max_ms)
		cap = config->retry_max_ms;
	uint64_t random = 0;
	if (getrandom(&random, sizeof(random), GRND_NONBLOCK) != sizeof(random))
		random = uv_hrtime();
	uint64_t delay = random % (cap + 1);
	int64_t asked = result->retry_after_s < RETRY_AFTER_MAX_S ? result->retry_after_s : RETRY_AFTER_MAX_S;
	return asked > 0 && (uint64_t)asked * 1000 > delay ? (uint64_t)asked * 1000 : delay;
}

static void on_retry(uv_timer_t *timer)
{
	struct tw_sender *sender = timer->data;
	sender->state = TW_SENDER_IDLE;
	changed(sender);
	tw_target_kick(sender->target);
}

static void note_trouble(struct tw_sender *sender, const struct tw_webhook_result *result, const char *then)
{
	struct tw_target *target = sender->target;
	char text[sizeof(target->last_error)];
	if (result->status)
		snprintf(text, sizeof(text), "HTTP status %ld", result->status);
	else
		snprintf(text, sizeof(text), "%s", result->error);
	/* Once for a trouble, not once an attempt. */
	if (strcmp(text, target->last_error) != 0)
		tw_log(TW_LOG_WARN, target->config->name, "batch %" PRIu64 " not delivered: %s; %s", sender->n,
			text, then);
	memcpy(target->last_error, text, sizeof(text));
}

static void retry(struct tw_sender *sender, const struct tw_webhook_result *result)
{
	note_trouble(sender, result, "trying again");
	sender->attempt++;
	sender->target->retries++;
	sender->state = TW_SENDER_WAITING;
	uv_timer_start(&sender->retry, on_retry, retry_delay(sender, result), 0);
}

/* --- acknowledged --- */

static void acknowledge(struct tw_sender *sender)
{
	struct tw_target *target = sender->target;
	struct tw_spool_lane *lane = tw_sender_lane(sender);
	target->delivered += sender->count;
	target->batches++;
	target->last_error[0] = '\0';
	target->trusted = true;
	if (sender->attempt)
		tw_log(TW_LOG_INFO, target->config->name, "batch %" PRIu64 " delivered at attempt %u", sender->n,
			sender->attempt + 1);
	sender->attempt = 0;
	sender->window = WINDOW_MIN;
	sender->accepted = true;
	/* A rollback can bring older batches back that were acknowledged before this one. */
	while (lane->nplan && lane->plan[0].n <= sender->n) {
		struct tw_error *err = tw_spool_acknowledge(target->spool, lane);
		if (!err)
			continue;
		failed(sender, err);
		return;
	}
	changed(sender);
}

/* --- refused --- */

/* What these speak of is who sends and where to, not what is sent. */
static bool about_the_sender(long status)
{
	return status == 401 || status == 403 || status == 404 || status == 405 || status == 407;
}

/* A batch of several events is refused: smaller ones will show which of them it is. */
static struct tw_error *split(struct tw_sender *sender, const struct tw_webhook_result *result)
{
	struct tw_target *target = sender->target;
	struct tw_spool_lane *lane = tw_sender_lane(sender);
	const struct tw_spool_batch *batch = &lane->plan[0];
	note_trouble(sender, result, "sending it in pieces");
	if (batch->picks.first > sender->piece_until)
		sender->accepted = false;
	sender->piece_until = batch->picks.last;
	if (result->status == 413) {
		target->bytes_max = (batch->bytes + batch->picks.count + 1) / 2;
		sender->piece_events = UINT64_MAX;
	} else {
		sender->piece_events = (batch->picks.count + 1) / 2;
	}
	return tw_spool_unplan(target->spool, lane);
}

/* Nothing but what is held and the event in question waits for the target. */
static bool is_last(const struct tw_sender *sender)
{
	const struct tw_spool_lane *lane = tw_sender_lane(sender);
	return tw_spool_backlog(sender->target->spool, lane) <= lane->held + 1;
}

/* What was tried alone is refused, all of it: that speaks of the target, not of the events. */
static struct tw_error *take_back(struct tw_sender *sender, const struct tw_webhook_result *result)
{
	sender->window = sender->window < WINDOW_MAX ? sender->window * 2 : WINDOW_MAX;
	sender->piece_events = 1;
	retry(sender, result);
	return tw_spool_unhold(sender->target->spool, tw_sender_lane(sender));
}

/*
 * One event alone is refused. It is given up when the target is seen to accept another one; a target that
 * refuses everything (a wrong token, a wrong path) must not empty the spool into the dead letters. So up to
 * window events are held aside, in their order; when one behind them is accepted they are given up, and when
 * none is, they are taken back.
 */
static struct tw_error *refuse_event(struct tw_sender *sender, const struct tw_webhook_result *result,
	const char *answer)
{
	struct tw_target *target = sender->target;
	struct tw_spool_lane *lane = tw_sender_lane(sender);
	bool of_event = !about_the_sender(result->status);
	int64_t event = lane->plan[0].picks.first;
	if (event > sender->piece_until) {
		sender->accepted = false;
		sender->piece_until = event;
	}
	bool lone = !lane->held && is_last(sender) && target->trusted && sender->attempt + 1 >= LONE_TRIES;
	if (sender->accepted || (of_event && lone)) {
		tw_log(TW_LOG_WARN, target->config->name,
			"an event is refused with HTTP status %ld: it goes to the dead letters", result->status);
		target->trusted &= sender->accepted;
		return tw_spool_hold(target->spool, lane, result->status, answer, false);
	}
	if (lane->held + 1 >= sender->window || is_last(sender))
		return take_back(sender, result);
	note_trouble(sender, result, "trying the events behind it");
	return tw_spool_hold(target->spool, lane, result->status, answer, true);
}

static struct tw_error *refuse_batch(struct tw_sender *sender, const struct tw_webhook_result *result,
	const struct tw_judgement *judgement)
{
	struct tw_spool *spool = sender->target->spool;
	struct tw_spool_lane *lane = tw_sender_lane(sender);
	if (judgement->stopped_at) {
		TW_TRY(tw_spool_bury(spool, lane, judgement->stopped_at, judgement->status, judgement->answer));
		return tw_spool_advance(spool, lane, judgement->stopped_at);
	}
	return sender->count > 1 ? split(sender, result) : refuse_event(sender, result, judgement->answer);
}

static void refuse(struct tw_sender *sender, const struct tw_webhook_result *result,
	const struct tw_judgement *judgement)
{
	struct tw_spool_lane *lane = tw_sender_lane(sender);
	struct tw_error *err = NULL;
	if (about_the_sender(result->status) && sender->attempt < PATIENCE) {
		retry(sender, result);
		return;
	}
	/* After a rollback the plan may begin with a batch that was answered before: it is sent once more. */
	if (lane->nplan && lane->plan[0].n == sender->n)
		err = refuse_batch(sender, result, judgement);
	if (err)
		failed(sender, err);
	changed(sender);
}

/* The batch is taken, but for some of its events. */
static struct tw_error *bury(struct tw_sender *sender, const struct tw_judgement *judgement)
{
	struct tw_spool_lane *lane = tw_sender_lane(sender);
	if (!judgement->nrefused || !lane->nplan || lane->plan[0].n != sender->n)
		return NULL;
	tw_log(TW_LOG_WARN, sender->target->config->name, "%zu events of batch %" PRIu64 " are refused: they go to "
		"the dead letters", judgement->nrefused, sender->n);
	for (size_t i = 0; i < judgement->nrefused; i++)
		TW_TRY(tw_spool_bury(sender->target->spool, lane, judgement->refused[i].i,
			judgement->refused[i].status, judgement->refused[i].reason));
	sender->count -= judgement->nrefused;
	return NULL;
}

/* --- answers --- */

/* The receiver says that it is gone for good: its events are kept, and not sent. */
static void suspend(struct tw_sender *sender)
{
	struct tw_target *target = sender->target;
	snprintf(target->last_error, sizeof(target->last_error), "HTTP status 410: suspended");
	tw_log(TW_LOG_ERROR, target->config->name, "answered 410, gone: suspended, nothing more is sent to it");
	struct tw_error *err = tw_spool_suspend(target->spool, target->plan, true);
	if (err)
		failed(sender, err);
	changed(sender);
}

/* The target is in trouble: what it said of the events that are held may have come of that. */
static void reconsider(struct tw_sender *sender)
{
	struct tw_spool_lane *lane = tw_sender_lane(sender);
	if (!lane->held)
		return;
	struct tw_error *err = tw_spool_unhold(sender->target->spool, lane);
	if (err)
		failed(sender, err);
	changed(sender);
}

static void act(struct tw_sender *sender, const struct tw_webhook_result *result,
	const struct tw_judgement *judgement)
{
	struct tw_error *err = NULL;
	switch (judgement->verdict) {
	case TW_DELIVERED:
		err = bury(sender, judgement);
		if (err)
			failed(sender, err);
		else
			acknowledge(sender);
		break;
	case TW_GONE:
		suspend(sender);
		break;
	case TW_REFUSED:
	case TW_TOO_LARGE:
		refuse(sender, result, judgement);
		return; /* what comes of it is not committed yet */
	case TW_RETRY:
		retry(sender, result);
		reconsider(sender);
	}
	tw_target_kick(sender->target);
}

static void on_done(void *arg, const struct tw_webhook_result *result)
{
	struct tw_sender *sender = arg;
	struct tw_target *target = sender->target;
	struct tw_judgement judgement;
	target->last_status = result->status;
	target->under_way--;
	sender->state = TW_SENDER_IDLE;
	struct tw_error *err = tw_format_judge(sender->format, result, sender->count, &judgement);
	if (err) {
		failed(sender, err);
		judgement.verdict = TW_RETRY;
	}
	tw_limit_answer(&target->limit, uv_now(target->loop), uv_now(target->loop) - sender->sent_at,
		judgement.verdict == TW_RETRY);
	struct tw_webhook_result told = *result;
	if (judgement.status != result->status) {
		told.status = judgement.status;
		if (!told.status)
			told.error = "an answer that says nothing of the events";
	}
	act(sender, &told, &judgement);
	tw_judgement_deinit(&judgement);
}

/* --- planning --- */

static void on_delay(uv_timer_t *timer)
{
	changed(timer->data);
}

/* Whether a smaller batch is due; starts the timer when it will be. */
static bool is_due(struct tw_sender *sender)
{
	uint64_t now = uv_now(sender->target->loop);
	if (!sender->since)
		sender->since = now;
	uint64_t due = sender->since + sender->target->config->batch_delay_ms;
	if (now >= due || sender->piece_events)
		return true;
	if (!uv_is_active((uv_handle_t *)&sender->delay))
		uv_timer_start(&sender->delay, on_delay, due - now, 0);
	return false;
}

/* The bounds of the next batch. */
static struct tw_spool_bounds bounds_of(struct tw_sender *sender)
{
	const struct tw_target *target = sender->target;
	const struct tw_spool_lane *lane = tw_sender_lane(sender);
	struct tw_spool_bounds bounds = {
		.events = target->config->batch_events, .bytes = target->config->batch_bytes
	};
	if (target->bytes_max && target->bytes_max < bounds.bytes)
		bounds.bytes = target->bytes_max;
	if (lane->held)
		bounds.events = 1;
	if (!sender->piece_events)
		return bounds;
	if (lane->cursor >= sender->piece_until && !lane->draft.picks.count) {
		sender->piece_events = 0;
		return bounds;
	}
	if (sender->piece_events < bounds.events)
		bounds.events = sender->piece_events;
	bounds.until = sender->piece_until;
	return bounds;
}

/* What is held has nothing behind it that could tell more. */
static struct tw_error *end_hold(struct tw_sender *sender, bool *planned)
{
	const struct tw_webhook_result result = { .status = sender->target->last_status, .error = "" };
	*planned = true;
	return take_back(sender, &result);
}

struct tw_error *tw_sender_plan(struct tw_sender *sender, bool flush, bool *planned, bool *more)
{
	struct tw_spool *spool = sender->target->spool;
	struct tw_spool_lane *lane = tw_sender_lane(sender);
	TW_TRY(tw_sender_renew(sender));
	/* Not while a batch is under way: its answer would find another plan. */
	if (sender->again_ms && sender->state != TW_SENDER_SENDING) {
		TW_TRY(tw_spool_begin_again(spool, lane, sender->again_ms, true));
		sender->again_ms = 0;
	}
	while (lane->nplan < TW_SPOOL_PLAN) {
		struct tw_spool_bounds bounds = bounds_of(sender);
		bool full;
		bool unfinished;
		TW_TRY(tw_spool_look(spool, lane, &bounds, &full, &unfinished));
		*more |= unfinished;
		if (!lane->draft.picks.count) {
			if (bounds.until && lane->looked >= bounds.until)
				continue; /* the end of a refused batch, and none of what is left is wanted */
			break;
		}
		/* While a batch is under way the next ones grow until they are full. */
		if (!full && (lane->nplan || !(is_due(sender) || flush)))
			break;
		TW_TRY(tw_spool_plan(spool, lane));
		sender->since = 0;
		*planned = true;
		if (sender->piece_events || lane->held)
			break; /* what comes next depends on the answer */
	}
	if (!lane->draft.picks.count) {
		sender->since = 0;
		uv_timer_stop(&sender->delay);
	}
	if (lane->held && !lane->nplan && !lane->draft.picks.count && sender->state == TW_SENDER_IDLE && !*more)
		return end_hold(sender, planned);
	return NULL;
}

/* --- sending --- */

bool tw_sender_ready(const struct tw_sender *sender)
{
	return sender->state == TW_SENDER_IDLE && tw_sender_lane(sender)->nplan;
}

static struct tw_error *post(struct tw_sender *sender)
{
	struct tw_target *target = sender->target;
	const struct tw_spool_lane *lane = tw_sender_lane(sender);
	const struct tw_spool_batch *batch = &lane->plan[0];
	char number[TW_SPOOL_EPOCH_SIZE + 24];
	char id[TW_SPOOL_EPOCH_SIZE + 32];
	snprintf(number, sizeof(number), "%s/%" PRIu64, lane->epoch, batch->n);
	snprintf(id, sizeof(id), "msg_%s_%" PRIu64, lane->epoch, batch->n);
	tw_buf_reset(&sender->body);
	TW_AUTO_FREE char *url = NULL;
	TW_TRY(tw_format_body(target->spool, target->config, &batch->picks, &sender->body));
	TW_TRY(tw_format_url(target->config, id, &url));
	sender->n = batch->n;
	sender->count = batch->picks.count;
	sender->format = target->config->format;
	sender->sent_at = uv_now(target->loop);
	const struct tw_post request = {
		.url = url,
		.type = tw_format_content_type(target->config->format),
		.id = id,
		.batch = number,
		.previous = lane->acked,
		.body = sender->body.data,
		.len = sender->body.len,
	};
	return tw_endpoint_post(sender->endpoint, &request);
}

void tw_sender_send(struct tw_sender *sender)
{
	struct tw_error *err = post(sender);
	if (err) {
		failed(sender, err);
		return;
	}
	sender->state = TW_SENDER_SENDING;
	sender->target->under_way++;
}

struct tw_error *tw_sender_renew(struct tw_sender *sender)
{
	struct tw_endpoint *endpoint;
	if (!sender->renew || sender->state == TW_SENDER_SENDING)
		return NULL;
	TW_TRY(tw_endpoint_create(sender->target->hook, sender->target->config, on_done, sender, &endpoint));
	tw_endpoint_destroy(sender->endpoint);
	sender->endpoint = endpoint;
	sender->renew = false;
	if (sender->state == TW_SENDER_WAITING) { /* other settings may be what it waits for */
		uv_timer_stop(&sender->retry);
		sender->state = TW_SENDER_IDLE;
	}
	return NULL;
}

struct tw_error *tw_sender_create(struct tw_target *target, unsigned int index, struct tw_sender **out)
{
	struct tw_sender *sender = calloc(1, sizeof(*sender));
	if (!sender)
		return tw_error_nomem();
	sender->target = target;
	sender->index = index;
	sender->window = WINDOW_MIN;
	struct tw_error *err = tw_endpoint_create(target->hook, target->config, on_done, sender, &sender->endpoint);
	if (err) {
		free(sender);
		return err;
	}
	uv_timer_init(target->loop, &sender->retry);
	uv_timer_init(target->loop, &sender->delay);
	sender->retry.data = sender->delay.data = sender;
	target->open_handles += 2;
	*out = sender;
	return NULL;
}

static void free_all(struct tw_target *target)
{
	for (unsigned int i = 0; i < TW_SPOOL_LANES; i++) {
		if (!target->senders[i])
			continue;
		tw_buf_deinit(&target->senders[i]->body);
		free(target->senders[i]);
	}
	tw_filter_destroy(target->filter);
	free(target);
}

static void on_closed(uv_handle_t *handle)
{
	const struct tw_sender *sender = handle->data;
	struct tw_target *target = sender->target;
	if (--target->open_handles == 0 && target->destroyed)
		free_all(target);
}

void tw_sender_destroy(struct tw_sender *sender)
{
	tw_endpoint_destroy(sender->endpoint);
	uv_close((uv_handle_t *)&sender->retry, on_closed);
	uv_close((uv_handle_t *)&sender->delay, on_closed);
}
