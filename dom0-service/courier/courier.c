/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * One turn of the loop is one transaction: what has come in, the batches that are due and the batches that
 * were acknowledged become durable together; then inspectors get their ACK and targets their POST.
 */
#include "courier/courier.h"

#include "base/log.h"
#include "base/scope.h"
#include "courier/server.h"
#include "courier/spool.h"
#include "courier/status.h"
#include "courier/target.h"
#include "courier/webhook.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <uv.h>

#define HOLD_MS 500 /* between two tries when the spool has no room */
#define LAZY_MS 100 /* an acknowledged batch may wait so long for a commit: lost, it is sent again */

struct courier {
	const struct tw_config *config;
	uv_loop_t loop;
	uv_check_t check;
	uv_idle_t idle; /* keeps the loop from sleeping while a turn is wanted */
	uv_timer_t hold_timer;
	uv_timer_t lazy_timer;
	uv_timer_t drain_timer;
	uv_signal_t signals[2];
	struct tw_spool *spool;
	struct tw_webhook *hook;
	struct tw_server *server;
	struct tw_target **targets;
	size_t ntargets;
	unsigned int drain_ms;
	bool urgent; /* somebody waits for the commit */
	bool held;
	bool told; /* that it is held, once for a trouble */
	bool draining;
	bool in_turn;
	struct tw_error *err; /* why the loop ends */
};

static void end(struct courier *courier)
{
	uv_stop(&courier->loop);
}

static void on_idle(uv_idle_t *idle)
{
	(void)idle;
}

static void want_turn(struct courier *courier)
{
	uv_idle_start(&courier->idle, on_idle);
}

static void on_hold(uv_timer_t *timer);

/* Inspectors keep their events until there is room; targets go on and make some. */
static void hold(struct courier *courier, const char *why)
{
	if (!courier->told)
		tw_log(TW_LOG_ERROR, "", "%s: taking no events until there is room", why);
	courier->told = true;
	courier->held = true;
	tw_server_hold(courier->server, true);
	uv_timer_start(&courier->hold_timer, on_hold, HOLD_MS, 0);
}

static bool out_of_space(const struct tw_error *err)
{
	int errnum = tw_error_errnum(err);
	return errnum == ENOSPC || errnum == EDQUOT;
}

/* The spool failed: without room wait for it, else give up. Takes err. */
static void on_failed(void *arg, struct tw_error *err)
{
	struct courier *courier = arg;
	if (courier->err) {
		tw_error_destroy(err);
		return;
	}
	struct tw_error *worse = out_of_space(err) ? tw_spool_rollback(courier->spool) : NULL;
	if (!out_of_space(err) || worse) {
		courier->err = worse ? worse : err;
		if (worse)
			tw_error_destroy(err);
		end(courier);
		return;
	}
	hold(courier, tw_error_message(err));
	tw_server_rewind(courier->server);
	tw_error_destroy(err);
}

static bool all_delivered(const struct courier *courier)
{
	for (size_t i = 0; i < courier->ntargets; i++)
		if (!tw_target_idle(courier->targets[i]))
			return false;
	return true;
}

static struct tw_error *commit(struct courier *courier)
{
	courier->urgent = false;
	uv_timer_stop(&courier->lazy_timer);
	TW_TRY(tw_spool_commit(courier->spool));
	tw_server_committed(courier->server);
	for (size_t i = 0; i < courier->ntargets; i++)
		tw_target_kick(courier->targets[i]);
	if (courier->told && !courier->held) {
		tw_log(TW_LOG_INFO, "", "the spool has room: taking events again");
		courier->told = false;
	}
	return NULL;
}

static void turn(struct courier *courier);

static void on_lazy(uv_timer_t *timer)
{
	struct courier *courier = timer->data;
	courier->urgent = true;
	turn(courier);
}

static struct tw_error *plan_and_commit(struct courier *courier)
{
	bool planned = false;
	for (size_t i = 0; i < courier->ntargets; i++)
		TW_TRY(tw_target_plan(courier->targets[i], courier->draining, &planned));
	if (courier->urgent || planned || courier->draining)
		return commit(courier);
	if (tw_spool_dirty(courier->spool) && !uv_is_active((uv_handle_t *)&courier->lazy_timer))
		uv_timer_start(&courier->lazy_timer, on_lazy, LAZY_MS, 0);
	return NULL;
}

static void turn(struct courier *courier)
{
	uv_idle_stop(&courier->idle);
	if (courier->in_turn || courier->err)
		return;
	courier->in_turn = true;
	struct tw_error *err = plan_and_commit(courier);
	if (err)
		on_failed(courier, err);
	else if (!courier->held && !tw_spool_has_room(courier->spool))
		hold(courier, "the spool is full");
	courier->in_turn = false;
	if (courier->draining && all_delivered(courier))
		end(courier);
}

/* Records what was delivered meanwhile, then tries events again. */
static void on_hold(uv_timer_t *timer)
{
	struct courier *courier = timer->data;
	courier->urgent = true;
	turn(courier);
	uv_timer_start(&courier->hold_timer, on_hold, HOLD_MS, 0);
	if (courier->err || !tw_spool_has_room(courier->spool))
		return;
	uv_timer_stop(&courier->hold_timer);
	courier->held = false;
	tw_server_hold(courier->server, false);
}

static void on_check(uv_check_t *check)
{
	struct courier *courier = check->data;
	if (uv_is_active((uv_handle_t *)&courier->idle))
		turn(courier);
}

static void on_taken(void *arg, bool now)
{
	struct courier *courier = arg;
	courier->urgent = true;
	if (now)
		turn(courier);
	else
		want_turn(courier);
}

static void on_target_changed(void *arg)
{
	want_turn(arg);
}

static void on_status(void *arg, struct tw_buf *out)
{
	struct courier *courier = arg;
	struct tw_target_stats *targets = calloc(courier->ntargets + 1, sizeof(*targets));
	if (!targets) {
		out->failed = true;
		return;
	}
	struct tw_status status = {
		.spool_max_bytes = courier->config->spool_max_bytes,
		.held = courier->held,
		.targets = targets,
		.ntargets = courier->ntargets,
	};
	tw_server_stats(courier->server, &status.server);
	tw_spool_stats(courier->spool, &status.spool);
	for (size_t i = 0; i < courier->ntargets; i++)
		tw_target_stats(courier->targets[i], &targets[i]);
	tw_status_encode(&status, out);
	free(targets);
}

static void on_drained(uv_timer_t *timer)
{
	struct courier *courier = timer->data;
	tw_log(TW_LOG_WARN, "", "ending with undelivered events in the spool");
	end(courier);
}

static void on_signal(uv_signal_t *handle, int signum)
{
	(void)signum;
	struct courier *courier = handle->data;
	if (courier->draining || !courier->drain_ms) {
		end(courier);
		return;
	}
	courier->draining = true;
	tw_server_stop(courier->server);
	uv_timer_start(&courier->drain_timer, on_drained, courier->drain_ms, 0);
	want_turn(courier);
}

static void add_handle(struct courier *courier, void *handle)
{
	((uv_handle_t *)handle)->data = courier;
}

static void init_handles(struct courier *courier)
{
	uv_loop_t *loop = &courier->loop;
	uv_check_init(loop, &courier->check);
	uv_idle_init(loop, &courier->idle);
	uv_timer_init(loop, &courier->hold_timer);
	uv_timer_init(loop, &courier->lazy_timer);
	uv_timer_init(loop, &courier->drain_timer);
	uv_signal_init(loop, &courier->signals[0]);
	uv_signal_init(loop, &courier->signals[1]);
	add_handle(courier, &courier->check);
	add_handle(courier, &courier->idle);
	add_handle(courier, &courier->hold_timer);
	add_handle(courier, &courier->lazy_timer);
	add_handle(courier, &courier->drain_timer);
	add_handle(courier, &courier->signals[0]);
	add_handle(courier, &courier->signals[1]);
	uv_check_start(&courier->check, on_check);
	uv_signal_start(&courier->signals[0], on_signal, SIGTERM);
	uv_signal_start(&courier->signals[1], on_signal, SIGINT);
}

static void close_handles(struct courier *courier)
{
	tw_server_destroy(courier->server);
	for (size_t i = 0; i < courier->ntargets; i++)
		tw_target_destroy(courier->targets[i]);
	tw_webhook_destroy(courier->hook);
	uv_close((uv_handle_t *)&courier->check, NULL);
	uv_close((uv_handle_t *)&courier->idle, NULL);
	uv_close((uv_handle_t *)&courier->hold_timer, NULL);
	uv_close((uv_handle_t *)&courier->lazy_timer, NULL);
	uv_close((uv_handle_t *)&courier->drain_timer, NULL);
	uv_close((uv_handle_t *)&courier->signals[0], NULL);
	uv_close((uv_handle_t *)&courier->signals[1], NULL);
	uv_run(&courier->loop, UV_RUN_DEFAULT);
	uv_loop_close(&courier->loop);
}

static struct tw_error *add_targets(struct courier *courier)
{
	const struct tw_config *config = courier->config;
	const struct tw_target_hooks hooks = {
		.arg = courier, .changed = on_target_changed, .failed = on_failed
	};
	courier->targets = calloc(config->ntargets + 1, sizeof(*courier->targets));
	if (!courier->targets)
		return tw_error_nomem();
	for (size_t i = 0; i < config->ntargets; i++) {
		TW_TRY(tw_target_create(&courier->loop, courier->hook, courier->spool, &config->targets[i], &hooks,
			&courier->targets[i]));
		courier->ntargets++;
	}
	unsigned int forgotten;
	TW_TRY(tw_spool_forget_others(courier->spool, &forgotten));
	if (forgotten)
		tw_log(TW_LOG_WARN, "", "%u targets are no longer configured: what waited for them is dropped",
			forgotten);
	return tw_spool_commit(courier->spool);
}

static struct tw_error *start(struct courier *courier, const struct tw_courier_options *options)
{
	char path[4096];
	snprintf(path, sizeof(path), "%s/spool.db", courier->config->state_dir);
	TW_TRY(tw_spool_open(options->spool ? options->spool : path, courier->config->spool_max_bytes,
		&courier->spool));
	TW_TRY(tw_webhook_create(&courier->loop, &courier->hook));
	TW_TRY(add_targets(courier));
	const struct tw_server_hooks hooks = {
		.arg = courier, .changed = on_taken, .failed = on_failed, .status = on_status
	};
	snprintf(path, sizeof(path), "%s/courier.sock", courier->config->run_dir);
	TW_TRY(tw_server_create(&courier->loop, options->socket ? options->socket : path, courier->spool,
		&hooks, &courier->server));
	courier->urgent = true; /* what the last run left is sent at once */
	want_turn(courier);
	return NULL;
}

static struct tw_error *run(struct courier *courier, const struct tw_courier_options *options)
{
	TW_TRY(start(courier, options));
	uv_run(&courier->loop, UV_RUN_DEFAULT);
	if (courier->err)
		return TW_STEAL(courier->err);
	return tw_spool_commit(courier->spool);
}

struct tw_error *tw_courier_run(const struct tw_config *config, const struct tw_courier_options *options)
{
	struct courier courier = { .config = config, .drain_ms = options->drain_ms };
	int rc = uv_loop_init(&courier.loop);
	if (rc < 0)
		return tw_error_errno(rc, "event loop");
	init_handles(&courier);
	struct tw_error *err = run(&courier, options);
	close_handles(&courier);
	tw_spool_close(courier.spool);
	free(courier.targets);
	return err;
}
