/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * One turn of the loop is one transaction: what has come in, the batches that are due and the batches that
 * were acknowledged become durable together; then inspectors get their ACK and targets their POST.
 */
#include "courier/courier.h"

#include "base/files.h"
#include "base/log.h"
#include "base/scope.h"
#include "courier/admin.h"
#include "courier/server.h"
#include "courier/spool.h"
#include "courier/status.h"
#include "courier/targets.h"

#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <unistd.h>
#include <uv.h>

#define HOLD_MS 500 /* between two tries when the spool has no room */
#define HEARTBEAT_MS 1000 /* while something waits, limits are looked at so often at least */
#define KEPT_HEARTBEAT_MS 60000 /* and while delivered events may be kept */
#define TARGETS_SHARE 4 /* of the files that may be open, this part is for connections to targets and the spool */
#define BUSY_BYTES (96u << 10) /* in a commit: more is coming */
#define GATHER_MS 2
#define LAZY_MS 100 /* an acknowledged batch may wait so long for a commit: lost, it is sent again */

struct courier {
	const struct tw_config *config;
	uv_loop_t loop;
	uv_check_t check;
	uv_idle_t idle; /* keeps the loop from sleeping while a turn is wanted */
	uv_timer_t hold_timer;
	uv_timer_t lazy_timer;
	uv_timer_t drain_timer;
	uv_timer_t heartbeat;
	uv_timer_t gather_timer;
	uv_signal_t signals[3];
	const char *path; /* of the spool */
	struct tw_spool *spool;
	struct tw_server *server;
	struct tw_targets *targets;
	unsigned int drain_ms;
	uint64_t tidied; /* loop time */
	uint64_t limited;
	char host[HOST_NAME_MAX + 1];
	size_t taken; /* bytes that wait for the commit */
	bool busy;
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

/* Tidying up is done every LAZY_MS under load, and once after it. */
static struct tw_error *commit(struct courier *courier)
{
	uint64_t now = uv_now(&courier->loop);
	bool tidy = now >= courier->tidied + LAZY_MS || courier->draining;
	courier->urgent = false;
	courier->busy = courier->taken >= BUSY_BYTES;
	courier->taken = 0;
	uv_timer_stop(&courier->gather_timer);
	TW_TRY(tw_spool_commit(courier->spool, tidy));
	if (tidy)
		courier->tidied = now;
	tw_server_committed(courier->server);
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

static struct tw_error *enforce_limits(struct courier *courier, bool *more)
{
	uint64_t now = uv_now(&courier->loop);
	if (now < courier->limited + LAZY_MS)
		return NULL;
	courier->limited = now;
	TW_TRY(tw_targets_enforce(courier->targets, courier->host, more));
	return tw_spool_seal(courier->spool);
}

static struct tw_error *plan_and_commit(struct courier *courier)
{
	bool planned = false;
	bool more = false;
	TW_TRY(tw_spool_seal(courier->spool));
	TW_TRY(enforce_limits(courier, &more));
	TW_TRY(tw_targets_plan(courier->targets, courier->draining, &planned, &more));
	if (courier->urgent || planned || courier->draining)
		TW_TRY(commit(courier));
	if (more)
		want_turn(courier);
	if (tw_spool_untidy(courier->spool) && !uv_is_active((uv_handle_t *)&courier->lazy_timer))
		uv_timer_start(&courier->lazy_timer, on_lazy, LAZY_MS, 0);
	return NULL;
}

static void on_heartbeat(uv_timer_t *timer);

/* Time passes for events that nobody adds to. One beat a time, and none when there is nothing that may get old. */
static void keep_heart_beating(struct courier *courier)
{
	uint64_t keep_ms = tw_targets_config(courier->targets)->spool_keep_ms;
	uint64_t pause_ms = keep_ms / 16 < KEPT_HEARTBEAT_MS ? keep_ms / 16 : KEPT_HEARTBEAT_MS;
	if (tw_spool_waits(courier->spool) || (keep_ms && pause_ms < HEARTBEAT_MS))
		pause_ms = HEARTBEAT_MS;
	if (!pause_ms)
		return;
	if (!uv_is_active((uv_handle_t *)&courier->heartbeat) || uv_timer_get_due_in(&courier->heartbeat) > pause_ms)
		uv_timer_start(&courier->heartbeat, on_heartbeat, pause_ms, 0);
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
	if (!err)
		tw_targets_kick(courier->targets);
	courier->in_turn = false;
	keep_heart_beating(courier);
	if (courier->draining && tw_targets_idle(courier->targets))
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

static void on_heartbeat(uv_timer_t *timer)
{
	struct courier *courier = timer->data;
	if (tw_targets_config(courier->targets)->spool_keep_ms)
		courier->urgent = true;
	want_turn(courier);
}

static void on_check(uv_check_t *check)
{
	struct courier *courier = check->data;
	if (uv_is_active((uv_handle_t *)&courier->idle))
		turn(courier);
}

static void on_gathered(uv_timer_t *timer)
{
	struct courier *courier = timer->data;
	courier->urgent = true;
	turn(courier);
}

/* A commit costs the same for one event and for a thousand: while many come, they are gathered for a moment. */
static void on_taken(void *arg, size_t bytes, bool now)
{
	struct courier *courier = arg;
	courier->taken = bytes;
	if (courier->busy && !now) {
		if (!uv_is_active((uv_handle_t *)&courier->gather_timer))
			uv_timer_start(&courier->gather_timer, on_gathered, GATHER_MS, 0);
		return;
	}
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
	size_t n;
	struct tw_target **all = tw_targets_all(courier->targets, &n);
	struct tw_target_stats *targets = calloc(n + 1, sizeof(*targets));
	if (!targets) {
		out->failed = true;
		return;
	}
	struct tw_status status = {
		.spool_max_bytes = tw_targets_config(courier->targets)->spool_max_bytes,
		.held = courier->held,
		.targets = targets,
		.ntargets = n,
	};
	tw_server_stats(courier->server, &status.server);
	tw_spool_stats(courier->spool, &status.spool);
	for (size_t i = 0; i < n; i++)
		tw_target_stats(all[i], &targets[i]);
	tw_status_encode(&status, out);
	free(targets);
}

/* An answer that says yes is given when what it speaks of is durable. */
static void on_command(void *arg, const char *body, size_t len, struct tw_buf *out)
{
	struct courier *courier = arg;
	struct tw_admin admin = { .config = tw_targets_config(courier->targets), .spool = courier->spool };
	admin.targets = tw_targets_all(courier->targets, &admin.ntargets);
	tw_admin_answer(&admin, body, len, out);
	courier->urgent |= tw_spool_dirty(courier->spool);
	turn(courier);
	if (tw_spool_dirty(courier->spool)) {
		/* By the turn itself: a redelivery begins there, and its first batch may not be due yet. */
		courier->urgent = true;
		turn(courier);
	}
	if (!courier->err && !tw_spool_dirty(courier->spool))
		return;
	tw_buf_reset(out);
	tw_admin_refuse(out, TW_IO, "the spool could not be written");
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

static void on_reload(uv_signal_t *handle, int signum)
{
	(void)signum;
	struct courier *courier = handle->data;
	if (!courier->config->path || courier->draining || courier->err)
		return;
	struct tw_error *err = tw_targets_reload(courier->targets, courier->config->path);
	if (err) {
		on_failed(courier, err);
		return;
	}
	courier->urgent = true;
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
	uv_timer_init(loop, &courier->heartbeat);
	uv_timer_init(loop, &courier->gather_timer);
	uv_signal_init(loop, &courier->signals[0]);
	uv_signal_init(loop, &courier->signals[1]);
	uv_signal_init(loop, &courier->signals[2]);
	add_handle(courier, &courier->check);
	add_handle(courier, &courier->idle);
	add_handle(courier, &courier->hold_timer);
	add_handle(courier, &courier->lazy_timer);
	add_handle(courier, &courier->drain_timer);
	add_handle(courier, &courier->heartbeat);
	add_handle(courier, &courier->gather_timer);
	add_handle(courier, &courier->signals[0]);
	add_handle(courier, &courier->signals[1]);
	add_handle(courier, &courier->signals[2]);
	uv_check_start(&courier->check, on_check);
	uv_signal_start(&courier->signals[0], on_signal, SIGTERM);
	uv_signal_start(&courier->signals[1], on_signal, SIGINT);
	uv_signal_start(&courier->signals[2], on_reload, SIGHUP);
}

static void close_handles(struct courier *courier)
{
	tw_server_destroy(courier->server);
	tw_targets_close(courier->targets);
	uv_close((uv_handle_t *)&courier->check, NULL);
	uv_close((uv_handle_t *)&courier->idle, NULL);
	uv_close((uv_handle_t *)&courier->hold_timer, NULL);
	uv_close((uv_handle_t *)&courier->lazy_timer, NULL);
	uv_close((uv_handle_t *)&courier->drain_timer, NULL);
	uv_close((uv_handle_t *)&courier->heartbeat, NULL);
	uv_close((uv_handle_t *)&courier->gather_timer, NULL);
	uv_close((uv_handle_t *)&courier->signals[0], NULL);
	uv_close((uv_handle_t *)&courier->signals[1], NULL);
	uv_close((uv_handle_t *)&courier->signals[2], NULL);
	uv_run(&courier->loop, UV_RUN_DEFAULT);
	uv_loop_close(&courier->loop);
}

/* What was delivered of these events is not known; whoever gets this can tell from its own records. */
static struct tw_error *on_skipped(void *arg, struct tw_spool_disk *disk, uint64_t sequence)
{
	struct courier *courier = arg;
	tw_log(TW_LOG_WARN, disk->source, "events up to %llu are not in this spool",
		(unsigned long long)sequence);
	TW_TRY(tw_spool_skip(courier->spool, disk, sequence));
	return tw_spool_tell_unknown(courier->spool, courier->host, disk, sequence);
}

/* A damaged spool is set aside: the guests' changes from now on are worth more than a courier that waits for
 * somebody to look at it. */
static struct tw_error *open_spool(const char *path, uint64_t max_bytes, struct tw_spool **out)
{
	struct tw_error *err = tw_spool_open(path, max_bytes, out);
	if (!err || tw_error_code(err) != TW_BAD_DATA)
		return err;
	TW_AUTO_FREE char *aside = NULL;
	struct tw_error *worse = tw_spool_set_aside(path, &aside);
	if (worse) {
		tw_error_destroy(err);
		return worse;
	}
	tw_log(TW_LOG_ERROR, "", "%s; it is now %s, and a new one is begun: what it held is not delivered",
		tw_error_message(err), aside);
	tw_error_destroy(err);
	return tw_spool_open(path, max_bytes, out);
}

static struct tw_error *start(struct courier *courier, const struct tw_courier_options *options)
{
	char path[4096];
	TW_TRY(open_spool(courier->path, courier->config->spool_max_bytes, &courier->spool));
	tw_spool_set_limits(courier->spool, courier->config->spool_max_bytes, courier->config->spool_keep_ms);
	if (gethostname(courier->host, sizeof(courier->host) - 1) < 0)
		return tw_error_errno(errno, "the host's name");
	const struct tw_target_hooks target_hooks = {
		.arg = courier, .changed = on_target_changed, .failed = on_failed
	};
	TW_TRY(tw_targets_create(&courier->loop, courier->spool, courier->config, &target_hooks, &courier->targets));
	const struct tw_server_hooks hooks = {
		.arg = courier, .changed = on_taken, .failed = on_failed, .skipped = on_skipped,
		.status = on_status, .command = on_command
	};
	snprintf(path, sizeof(path), "%s/courier.sock", courier->config->run_dir);
	unsigned int files = tw_files_raise_limit();
	TW_TRY(tw_server_create(&courier->loop, options->socket ? options->socket : path, courier->spool,
		files - files / TARGETS_SHARE, &hooks, &courier->server));
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
	return tw_spool_commit(courier->spool, true);
}

/* Its file is damaged in a way that opening it did not show: the next start begins a new one. */
static struct tw_error *give_up_spool(struct tw_error *err, const char *path)
{
	TW_AUTO_FREE char *aside = NULL;
	struct tw_error *worse = tw_spool_set_aside(path, &aside);
	if (!worse)
		return tw_error_context(err, "set aside as %s", aside);
	tw_error_destroy(worse);
	return err;
}

struct tw_error *tw_courier_run(const struct tw_config *config, const struct tw_courier_options *options)
{
	struct courier courier = { .config = config, .drain_ms = options->drain_ms };
	TW_AUTO_FREE char *path = NULL;
	if (asprintf(&path, "%s/spool.db", config->state_dir) < 0) {
		path = NULL;
		return tw_error_nomem();
	}
	courier.path = options->spool ? options->spool : path;
	int rc = uv_loop_init(&courier.loop);
	if (rc < 0)
		return tw_error_errno(rc, "event loop");
	init_handles(&courier);
	struct tw_error *err = run(&courier, options);
	close_handles(&courier);
	tw_spool_close(courier.spool);
	tw_targets_free(courier.targets);
	return err && tw_error_code(err) == TW_BAD_DATA ? give_up_spool(err, courier.path) : err;
}
