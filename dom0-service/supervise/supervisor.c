/* SPDX-License-Identifier: BSD-3-Clause */
#include "supervise/supervisor.h"
#include "base/log.h"
#include "base/scope.h"
#include "event/json.h"
#include "supervise/child.h"
#include "supervise/control.h"
#include "supervise/notify.h"
#include "supervise/paths.h"
#include "supervise/query.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* The courier gets this much longer than its own bound before it is killed. */
#define COURIER_PATIENCE_MS 3000

enum phase { STARTING, RUNNING, STOPPING_NBD, STOPPING_INSPECTORS, STOPPING_COURIER, ENDED };

struct supervisor {
	const struct tw_supervisor_options *options;
	uv_loop_t loop;
	uv_signal_t sigint;
	uv_signal_t sigterm;
	struct tw_control *control;
	struct tw_child *courier;
	struct tw_watch **watches;
	size_t nwatches;
	char *control_socket;
	char *courier_socket;
	enum phase phase;
	size_t live;    /* disks that are, counted while STARTING */
	size_t waiting; /* for so many parts in a stopping phase */
	bool disks_started;
	int status;
};

/* --- the end --- */

static void next_phase(struct supervisor *sup);

static void part_stopped(void *arg)
{
	struct supervisor *sup = arg;
	if (--sup->waiting == 0)
		next_phase(sup);
}

static void close_all(struct supervisor *sup)
{
	tw_control_destroy(sup->control);
	sup->control = NULL;
	for (size_t i = 0; i < sup->nwatches; i++)
		tw_watch_destroy(sup->watches[i]);
	sup->nwatches = 0;
	tw_child_destroy(sup->courier);
	sup->courier = NULL;
	uv_close((uv_handle_t *)&sup->sigint, NULL);
	uv_close((uv_handle_t *)&sup->sigterm, NULL);
}

/* part_stopped() may be called from within: waiting is set before the first part is asked. */
static void next_phase(struct supervisor *sup)
{
	sup->phase++;
	switch (sup->phase) {
	case STOPPING_NBD:
		sup->waiting = sup->nwatches + 1;
		for (size_t i = 0; i < sup->nwatches; i++)
			tw_watch_stop_serving(sup->watches[i]);
		part_stopped(sup);
		return;
	case STOPPING_INSPECTORS:
		sup->waiting = sup->nwatches + 1;
		for (size_t i = 0; i < sup->nwatches; i++)
			tw_watch_stop_inspecting(sup->watches[i]);
		part_stopped(sup);
		return;
	case STOPPING_COURIER:
		sup->waiting = 1;
		tw_child_stop(sup->courier,
			sup->options->linger_s * UINT64_C(1000) + COURIER_PATIENCE_MS);
		return;
	default:
		close_all(sup);
	}
}

static void begin_stop(struct supervisor *sup, int status)
{
	if (sup->phase > RUNNING)
		return;
	tw_notify("STOPPING=1");
	sup->status = status;
	sup->phase = RUNNING;
	next_phase(sup);
}

static void on_signal(uv_signal_t *handle, int signum)
{
	struct supervisor *sup = handle->data;
	if (sup->phase <= RUNNING) {
		tw_log(TW_LOG_INFO, "", "stopping (signal %d)", signum);
		begin_stop(sup, 0);
		return;
	}
	tw_log(TW_LOG_WARN, "", "stopping at once (signal %d)", signum);
	for (size_t i = 0; i < sup->nwatches; i++)
		tw_watch_kill(sup->watches[i]);
	if (sup->courier)
		tw_child_kill(sup->courier);
}

/* --- the disks --- */

static void disk_live(void *arg)
{
	struct supervisor *sup = arg;
	if (sup->phase != STARTING || ++sup->live < sup->nwatches)
		return;
	sup->phase = RUNNING;
	if (sup->options->live)
		sup->options->live(sup->options->arg);
}

static bool part_failed(void *arg, int status)
{
	struct supervisor *sup = arg;
	if (!sup->options->embedded)
		return true;
	begin_stop(sup, status);
	return false;
}

static const struct tw_watch_ops watch_ops = {
	.live = disk_live,
	.failed = part_failed,
	.stopped = part_stopped,
};

/* --- the courier --- */

static bool courier_probe(void *arg)
{
	const struct supervisor *sup = arg;
	int fd = -1;
	struct tw_error *err = tw_query_connect(sup->courier_socket, 1000, &fd);
	if (err)
		tw_error_destroy(err);
	else
		close(fd);
	return fd >= 0;
}

static void courier_ready(void *arg)
{
	struct supervisor *sup = arg;
	if (sup->disks_started)
		return;
	sup->disks_started = true;
	tw_notify("READY=1");
	for (size_t i = 0; i < sup->nwatches; i++)
		tw_watch_start(sup->watches[i]);
}

static bool courier_ended(void *arg, int status, bool was_ready)
{
	struct supervisor *sup = arg;
	/* While the rest stops, it is still wanted: what the inspectors find last must be stored.
	 */
	if (sup->phase > STOPPING_INSPECTORS)
		return false;
	return was_ready || sup->disks_started || part_failed(sup, status);
}

static void courier_stopped(void *arg, int status)
{
	struct supervisor *sup = arg;
	if (status > 0)
		tw_log(TW_LOG_WARN, "", "the courier ended with status %d", status);
	part_stopped(sup);
}

static const struct tw_child_ops courier_ops = {
	.ready = courier_ready,
	.ended = courier_ended,
	.stopped = courier_stopped,
	.probe = courier_probe,
};

static struct tw_error *create_courier(struct supervisor *sup)
{
	TW_AUTO_FREE char *program = NULL;
	TW_AUTO_FREE char *spool = tw_path_join(sup->options->state_dir, "spool.db");
	char drain[24];
	if (!spool)
		return tw_error_nomem();
	snprintf(drain, sizeof(drain), "%u", sup->options->linger_s);
	TW_TRY(tw_path_program("tapwire-courier", &program));
	const char *const argv[] = { program, "--config", sup->options->config, "--socket",
		sup->courier_socket, "--spool", spool, "--drain", drain, NULL };
	return tw_child_create(
		&sup->loop, "tapwire-courier", argv, &courier_ops, sup, &sup->courier);
}

/* --- control --- */

static void put_courier(const struct supervisor *sup, struct tw_json *json)
{
	tw_json_open(json, "courier");
	tw_json_text(json, "state", tw_child_state_name(tw_child_state(sup->courier)));
	tw_json_u64(json, "pid", (uint64_t)tw_child_pid(sup->courier));
	tw_json_u64(json, "restarts", tw_child_restarts(sup->courier));
	tw_json_text(json, "socket", sup->courier_socket);
	tw_json_close(json);
}

static struct tw_error *answer(void *arg, const char *command, struct tw_buf *out)
{
	const struct supervisor *sup = arg;
	if (strcmp(command, "status") != 0)
		return tw_error_create(TW_USAGE, "unknown command \"%s\"", command);
	struct tw_json json;
	tw_json_begin(&json, out);
	tw_json_open(&json, NULL);
	tw_json_bool(&json, "ok", true);
	tw_json_text(&json, "version", TW_VERSION);
	tw_json_u64(&json, "pid", (uint64_t)getpid());
	tw_json_text(&json, "state",
		sup->phase <= STARTING  ? "starting"
		: sup->phase == RUNNING ? "running"
					: "stopping");
	put_courier(sup, &json);
	tw_json_open_array(&json, "disks");
	for (size_t i = 0; i < sup->nwatches; i++)
		tw_watch_status(sup->watches[i], &json);
	tw_json_close_array(&json);
	tw_json_close(&json);
	return tw_json_end(&json);
}

/* --- the whole --- */

static struct tw_error *create_parts(struct supervisor *sup)
{
	const struct tw_supervisor_options *options = sup->options;
	sup->control_socket = tw_path_join(options->run_dir, TW_CONTROL_SOCKET);
	sup->courier_socket = tw_path_join(options->run_dir, TW_COURIER_SOCKET);
	sup->watches = calloc(options->ndisks + 1, sizeof(struct tw_watch *));
	if (!sup->control_socket || !sup->courier_socket || !sup->watches)
		return tw_error_nomem();
	TW_TRY(tw_path_check_socket(sup->courier_socket));
	TW_TRY(create_courier(sup));
	for (; sup->nwatches < options->ndisks; sup->nwatches++)
		TW_TRY(tw_watch_create(&sup->loop, &options->disks[sup->nwatches], &watch_ops, sup,
			&sup->watches[sup->nwatches]));
	return tw_control_create(&sup->loop, sup->control_socket, answer, sup, &sup->control);
}

static void init_signals(struct supervisor *sup)
{
	uv_signal_init(&sup->loop, &sup->sigint);
	uv_signal_init(&sup->loop, &sup->sigterm);
	sup->sigint.data = sup;
	sup->sigterm.data = sup;
	uv_signal_start(&sup->sigint, on_signal, SIGINT);
	uv_signal_start(&sup->sigterm, on_signal, SIGTERM);
	signal(SIGPIPE, SIG_IGN);
}

struct tw_error *tw_supervise(const struct tw_supervisor_options *options, int *status)
{
	struct supervisor sup = { .options = options };
	int ret = uv_loop_init(&sup.loop);
	if (ret < 0)
		return tw_error_errno(ret, "event loop");
	init_signals(&sup);
	struct tw_error *err = create_parts(&sup);
	if (err)
		close_all(&sup);
	else
		tw_child_start(sup.courier);
	uv_run(&sup.loop, UV_RUN_DEFAULT);
	uv_loop_close(&sup.loop);
	if (!err)
		unlink(sup.control_socket);
	free(sup.control_socket);
	free(sup.courier_socket);
	free(sup.watches);
	*status = sup.status;
	return err;
}
