/* SPDX-License-Identifier: BSD-3-Clause */
#include "supervise/supervisor.h"
#include "base/files.h"
#include "base/log.h"
#include "base/scope.h"
#include "event/json.h"
#include "supervise/child.h"
#include "supervise/control.h"
#include "supervise/fleet.h"
#include "supervise/guests.h"
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

enum phase { STARTING, RUNNING, STOPPING_DISKS, STOPPING_COURIER, STOPPING_GUESTS, ENDED };

struct supervisor {
	const struct tw_supervisor_options *options;
	uv_loop_t loop;
	uv_signal_t sigint;
	uv_signal_t sigterm;
	uv_signal_t sighup;
	struct tw_control *control;
	struct tw_child *courier;
	struct tw_fleet *fleet;
	struct tw_guests *guests; /* NULL without */
	struct tw_supervisor_setup setup;
	char *control_socket;
	char *courier_socket;
	enum phase phase;
	size_t live; /* disks that are, counted while STARTING */
	bool disks_started;
	int status;
};

/* --- the end --- */

static void close_all(struct supervisor *sup)
{
	tw_control_destroy(sup->control);
	sup->control = NULL;
	tw_guests_destroy(sup->guests);
	sup->guests = NULL;
	tw_fleet_destroy(sup->fleet);
	sup->fleet = NULL;
	tw_child_destroy(sup->courier);
	sup->courier = NULL;
	uv_close((uv_handle_t *)&sup->sigint, NULL);
	uv_close((uv_handle_t *)&sup->sigterm, NULL);
	uv_close((uv_handle_t *)&sup->sighup, NULL);
}

static void next_phase(struct supervisor *sup);

static void guests_stopped(void *arg)
{
	next_phase(arg);
}

static void next_phase(struct supervisor *sup)
{
	sup->phase++;
	switch (sup->phase) {
	case STOPPING_DISKS:
		if (sup->guests)
			tw_guests_ending(sup->guests);
		tw_fleet_stop(sup->fleet);
		return;
	case STOPPING_COURIER:
		tw_child_stop(sup->courier,
			sup->options->linger_s * UINT64_C(1000) + COURIER_PATIENCE_MS);
		return;
	case STOPPING_GUESTS:
		if (sup->guests)
			tw_guests_stop(sup->guests, guests_stopped, sup);
		else
			next_phase(sup);
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
	if (sup->fleet)
		tw_fleet_kill(sup->fleet);
	if (sup->courier)
		tw_child_kill(sup->courier);
}

/* --- the disks --- */

static void disk_live(void *arg)
{
	struct supervisor *sup = arg;
	if (sup->phase != STARTING || ++sup->live < tw_fleet_size(sup->fleet))
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

static void disk_changed(void *arg, const struct tw_disk_spec *spec, const struct tw_report *report)
{
	const struct supervisor *sup = arg;
	if (sup->guests)
		tw_guests_disk_changed(sup->guests, spec, report);
}

static void disk_gone(void *arg, const char *state_dir)
{
	const struct supervisor *sup = arg;
	if (sup->guests)
		tw_guests_disk_gone(sup->guests, state_dir);
}

static void disks_stopped(void *arg)
{
	next_phase(arg);
}

static const struct tw_fleet_ops fleet_ops = {
	.live = disk_live,
	.failed = part_failed,
	.changed = disk_changed,
	.gone = disk_gone,
	.stopped = disks_stopped,
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
	if (sup->guests)
		tw_guests_courier(sup->guests, true);
	if (sup->disks_started)
		return;
	sup->disks_started = true;
	tw_notify("READY=1");
	if (!sup->options->embedded)
		sup->phase = RUNNING;
	tw_fleet_start(sup->fleet);
	if (sup->guests)
		tw_guests_start(sup->guests);
}

static bool courier_ended(void *arg, int status, bool was_ready)
{
	struct supervisor *sup = arg;
	if (sup->guests)
		tw_guests_courier(sup->guests, false);
	/* While the rest stops, it is still wanted: what the inspectors find last must be stored.
	 */
	if (sup->phase > STOPPING_DISKS)
		return false;
	return was_ready || sup->disks_started || part_failed(sup, status);
}

static void courier_stopped(void *arg, int status)
{
	struct supervisor *sup = arg;
	if (status > 0)
		tw_log(TW_LOG_WARN, "", "the courier ended with status %d", status);
	if (sup->phase < STOPPING_COURIER)
		tw_child_start(sup->courier);
	else if (sup->phase == STOPPING_COURIER)
		next_phase(sup);
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

static struct tw_error *answer_detach(
	const struct supervisor *sup, const struct tw_question *question, struct tw_buf *out)
{
	struct tw_guest_detached detached = { 0 };
	struct tw_json json;
	if (sup->guests)
		tw_guests_detach(sup->guests, question->guest, question->vdev, &detached);
	tw_json_begin(&json, out);
	tw_json_open(&json, NULL);
	tw_json_bool(&json, "ok", true);
	tw_json_bool(&json, "ours", detached.ours);
	tw_json_bool(&json, "gone", detached.gone);
	tw_json_close(&json);
	return tw_json_end(&json);
}

static struct tw_error *answer_status(const struct supervisor *sup, struct tw_buf *out)
{
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
	tw_fleet_status(sup->fleet, &json);
	tw_json_close_array(&json);
	if (sup->guests)
		tw_guests_status(sup->guests, &json);
	tw_json_close(&json);
	return tw_json_end(&json);
}

static struct tw_error *answer(void *arg, const struct tw_question *question, struct tw_buf *out)
{
	if (strcmp(question->command, "status") == 0)
		return answer_status(arg, out);
	if (strcmp(question->command, "detach") == 0)
		return answer_detach(arg, question, out);
	return tw_error_create(TW_USAGE, "unknown command \"%s\"", question->command);
}

/* --- a new configuration --- */

static bool is_in(const struct tw_supervisor_setup *setup, const char *state_dir)
{
	for (size_t i = 0; i < setup->ndisks; i++)
		if (strcmp(setup->disks[i].state_dir, state_dir) == 0)
			return true;
	return false;
}

static struct tw_error *reload(struct supervisor *sup)
{
	struct tw_supervisor_setup setup;
	TW_TRY(sup->options->reload(sup->options->arg, &setup));
	for (size_t i = 0; i < sup->setup.ndisks; i++)
		if (!is_in(&setup, sup->setup.disks[i].state_dir))
			tw_fleet_drop(sup->fleet, sup->setup.disks[i].state_dir, false);
	sup->setup = setup;
	if (sup->guests && setup.xen)
		tw_guests_reload(sup->guests, setup.xen);
	for (size_t i = 0; i < setup.ndisks; i++)
		TW_TRY(tw_fleet_put(sup->fleet, &setup.disks[i]));
	tw_fleet_retry(sup->fleet);
	/* The courier reads its part of the file itself. */
	const int courier = tw_child_pid(sup->courier);
	if (courier > 0)
		kill(courier, SIGHUP);
	return NULL;
}

/* A service that belongs to a terminal ends with it. */
static void on_hangup(uv_signal_t *handle, int signum)
{
	struct supervisor *sup = handle->data;
	if (!sup->options->reload) {
		on_signal(handle, signum);
		return;
	}
	if (sup->phase > RUNNING)
		return;
	struct tw_error *err = reload(sup);
	if (err)
		tw_log(TW_LOG_ERROR, "", "%s; the configuration stays as it was", tw_error_message(err));
	else
		tw_log(TW_LOG_INFO, "", "read %s anew", sup->options->config);
	tw_error_destroy(err);
}

/* --- the whole --- */

static struct tw_error *create_parts(struct supervisor *sup)
{
	const struct tw_supervisor_options *options = sup->options;
	sup->control_socket = tw_path_join(options->run_dir, TW_CONTROL_SOCKET);
	sup->courier_socket = tw_path_join(options->run_dir, TW_COURIER_SOCKET);
	if (!sup->control_socket || !sup->courier_socket)
		return tw_error_nomem();
	TW_TRY(tw_path_check_socket(sup->courier_socket));
	TW_TRY(create_courier(sup));
	TW_TRY(tw_fleet_create(&sup->loop, &fleet_ops, sup, &sup->fleet));
	sup->setup = options->setup;
	for (size_t i = 0; i < sup->setup.ndisks; i++)
		TW_TRY(tw_fleet_put(sup->fleet, &sup->setup.disks[i]));
	if (sup->setup.xen)
		TW_TRY(tw_guests_create(&sup->loop, sup->fleet, sup->setup.xen, options->host, sup->courier_socket,
			&sup->guests));
	return tw_control_create(&sup->loop, sup->control_socket, answer, sup, &sup->control);
}

static void init_signals(struct supervisor *sup)
{
	uv_signal_init(&sup->loop, &sup->sigint);
	uv_signal_init(&sup->loop, &sup->sigterm);
	uv_signal_init(&sup->loop, &sup->sighup);
	sup->sigint.data = sup;
	sup->sigterm.data = sup;
	sup->sighup.data = sup;
	uv_signal_start(&sup->sigint, on_signal, SIGINT);
	uv_signal_start(&sup->sigterm, on_signal, SIGTERM);
	uv_signal_start(&sup->sighup, on_hangup, SIGHUP);
	signal(SIGPIPE, SIG_IGN);
}

struct tw_error *tw_supervise(const struct tw_supervisor_options *options, int *status)
{
	struct supervisor sup = { .options = options };
	tw_files_raise_limit();
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
	*status = sup.status;
	return err;
}
