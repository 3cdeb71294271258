/* SPDX-License-Identifier: BSD-3-Clause */
#include "supervise/disk.h"
#include "base/log.h"
#include "base/scope.h"
#include "ring.h"
#include "supervise/child.h"
#include "supervise/mirror.h"
#include "supervise/paths.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* nbdkit finishes what it has begun, but it waits for its clients to go, too: one that stays must
 * not keep the service. The ring survives the kill. */
#define NBDKIT_PATIENCE_MS 2000
#define DRAIN_PATIENCE_MS 60000
#define STATUS_MAX (256 << 10)

struct tw_watch {
	struct tw_disk_spec *spec;
	const struct tw_watch_ops *ops;
	void *arg;
	struct tw_appear *appear;
	struct tw_appear_wait *ring_wait; /* NULL: the ring is there, or is not waited for */
	struct tw_child *nbdkit;          /* NULL without */
	struct tw_mirror *mirror;         /* NULL without */
	struct tw_mirror_spec mirror_spec;
	struct tw_child *inspector;
	struct tw_report report; /* the inspector's */
	struct tw_report told;   /* with the mirror's trouble, if there is any */
	char *trouble;
	char *private_socket;
	char *pidfile; /* nbdkit writes it when it accepts connections */
	bool live;     /* for the first time */
	bool stopping;
	bool old_ring; /* the ring was there before: it may hold writes */
	bool draining; /* the inspector is to end as soon as it is ready */
	bool drained;  /* the inspector ended as asked: the ring is empty */
	bool for_good; /* the disk is gone */
};

static struct tw_error *check_public_socket(const char *path)
{
	struct stat st;
	if (lstat(path, &st) == 0 && !S_ISSOCK(st.st_mode))
		return tw_error_create(TW_USAGE, "%s: exists and is no socket", path);
	return NULL;
}

static bool may_announce(const struct tw_watch *watch)
{
	return tw_child_state(watch->inspector) == TW_CHILD_LIVE &&
	       (!watch->nbdkit || tw_child_state(watch->nbdkit) == TW_CHILD_LIVE) &&
	       (!watch->mirror || tw_mirror_is_live(watch->mirror));
}

static void report_changed(struct tw_watch *watch)
{
	watch->told = tw_report_with_trouble(&watch->report, watch->trouble);
	watch->ops->changed(watch->arg);
}

/* Both are there: let clients in. */
static void announce(struct tw_watch *watch)
{
	if (!may_announce(watch))
		return;
	if (watch->nbdkit && access(watch->private_socket, F_OK) == 0 &&
		rename(watch->private_socket, watch->spec->nbd_socket) < 0) {
		tw_log(TW_LOG_ERROR, watch->spec->name, "%s: %s", watch->spec->nbd_socket,
			strerror(errno));
		return;
	}
	if (watch->live)
		return;
	watch->live = true;
	watch->ops->live(watch->arg);
}

static bool ended(void *arg, int status, bool was_ready)
{
	struct tw_watch *watch = arg;
	(void)was_ready;
	if (watch->stopping)
		return false;
	return watch->live || watch->ops->failed(watch->arg, status);
}

/* --- nbdkit --- */

static bool nbdkit_probe(void *arg)
{
	const struct tw_watch *watch = arg;
	struct stat st;
	return stat(watch->pidfile, &st) == 0 && st.st_size > 0;
}

/* The inspector will say why, if it does not get one. */
static void make_state_dir(const struct tw_watch *watch)
{
	struct tw_error *err = tw_path_make_dir(watch->spec->state_dir);
	if (err)
		tw_log(TW_LOG_ERROR, watch->spec->name, "%s", tw_error_message(err));
	tw_error_destroy(err);
}

static void start_inspector(struct tw_watch *watch)
{
	if (tw_child_state(watch->inspector) != TW_CHILD_IDLE)
		return;
	make_state_dir(watch);
	watch->report.state = TW_REPORT_STARTING;
	report_changed(watch);
	watch->ops->may_start(watch->arg);
}

void tw_watch_go(struct tw_watch *watch)
{
	if (watch->stopping || tw_child_state(watch->inspector) != TW_CHILD_IDLE) {
		watch->ops->started(watch->arg);
		return;
	}
	tw_child_start(watch->inspector);
}

static void nbdkit_ready(void *arg)
{
	struct tw_watch *watch = arg;
	unlink(watch->pidfile);
	start_inspector(watch);
	announce(watch);
}

static bool nbdkit_ended(void *arg, int status, bool was_ready)
{
	const struct tw_watch *watch = arg;
	unlink(watch->pidfile);
	unlink(watch->private_socket);
	return ended(arg, status, was_ready);
}

static void nbdkit_stopped(void *arg, int status)
{
	struct tw_watch *watch = arg;
	if (status > 0)
		tw_log(TW_LOG_WARN, watch->spec->name, "nbdkit ended with status %d", status);
	unlink(watch->pidfile);
	unlink(watch->private_socket);
	unlink(watch->spec->nbd_socket);
	watch->ops->stopped(watch->arg);
}

static const struct tw_child_ops nbdkit_ops = {
	.ready = nbdkit_ready,
	.ended = nbdkit_ended,
	.stopped = nbdkit_stopped,
	.probe = nbdkit_probe,
};

static struct tw_error *create_nbdkit(uv_loop_t *loop, struct tw_watch *watch)
{
	const struct tw_disk_spec *spec = watch->spec;
	TW_AUTO_FREE char *program = NULL;
	TW_AUTO_FREE char *plugin = NULL;
	TW_AUTO_FREE char *file = NULL;
	TW_AUTO_FREE char *ring = NULL;
	TW_AUTO_FREE char *size = NULL;
	TW_AUTO_FREE char *record = NULL;
	TW_TRY(check_public_socket(spec->nbd_socket));
	if (asprintf(&watch->private_socket, "%s.starting", spec->nbd_socket) < 0)
		return tw_error_nomem();
	TW_TRY(tw_path_check_socket(watch->private_socket));
	watch->pidfile = tw_path_join(spec->state_dir, "nbdkit.pid");
	TW_TRY(tw_path_program("nbdkit", &program));
	TW_TRY(tw_path_plugin(&plugin));
	if (!watch->pidfile || asprintf(&file, "file=%s", spec->image) < 0 ||
		asprintf(&ring, "ring=%s", spec->ring) < 0 ||
		asprintf(&size, "ring-size=%s", spec->ring_size ? spec->ring_size : "") < 0 ||
		asprintf(&record, "record=%s", spec->record ? spec->record : "") < 0)
		return tw_error_nomem();
	const char *argv[16] = { program, "--foreground", "-P", watch->pidfile, "-U",
		watch->private_socket, plugin, file, ring };
	size_t n = 9;
	if (spec->ring_size)
		argv[n++] = size;
	if (spec->record) {
		argv[n++] = record;
		/* An nbdkit that is started again goes on with it. */
		argv[n++] = "record-append=true";
	}
	return tw_child_create(loop, "nbdkit", argv, &nbdkit_ops, watch, &watch->nbdkit);
}

/* --- the mirror --- */

static void mirror_live(void *arg)
{
	struct tw_watch *watch = arg;
	/* It finds the rings of later sessions by itself. */
	start_inspector(watch);
	announce(watch);
}

static bool mirror_failed(void *arg, int status)
{
	struct tw_watch *watch = arg;
	return !watch->stopping && watch->ops->failed(watch->arg, status);
}

static void mirror_stopped(void *arg)
{
	struct tw_watch *watch = arg;
	watch->ops->stopped(watch->arg);
}

static void mirror_trouble(void *arg, const char *what)
{
	struct tw_watch *watch = arg;
	free(watch->trouble);
	watch->trouble = what ? strdup(what) : NULL;
	report_changed(watch);
}

static const struct tw_mirror_ops mirror_ops = {
	.live = mirror_live,
	.failed = mirror_failed,
	.stopped = mirror_stopped,
	.trouble = mirror_trouble,
};

static struct tw_error *create_mirror(uv_loop_t *loop, struct tw_watch *watch)
{
	const struct tw_disk_spec *spec = watch->spec;
	watch->mirror_spec = (struct tw_mirror_spec){
		.name = spec->name,
		.image = spec->image,
		.ring = spec->ring,
		.ring_size = spec->ring_size,
		.target = spec->tapdisk,
		.tap_ctl = spec->tap_ctl,
		.stall_ms = spec->stall_ms,
		.tries = spec->tries,
	};
	return tw_mirror_create(loop, &watch->mirror_spec, &mirror_ops, watch, &watch->mirror);
}

/* --- the inspector --- */

static void inspector_ready(void *arg)
{
	struct tw_watch *watch = arg;
	watch->ops->started(watch->arg);
	if (watch->draining)
		tw_child_stop(watch->inspector, DRAIN_PATIENCE_MS);
	else
		announce(watch);
}

static void inspector_says(void *arg, const char *line)
{
	struct tw_watch *watch = arg;
	if (tw_report_take(&watch->report, line))
		report_changed(watch);
}

static void inspector_stopped(void *arg, int status)
{
	struct tw_watch *watch = arg;
	watch->drained = status == 0;
	if (status > 0)
		tw_log(TW_LOG_WARN, watch->spec->name, "the inspector ended with status %d",
			status);
	watch->ops->stopped(watch->arg);
}

static bool inspector_ended(void *arg, int status, bool was_ready)
{
	struct tw_watch *watch = arg;
	if (!was_ready)
		watch->ops->started(watch->arg);
	if (watch->draining) {
		inspector_stopped(arg, status);
		return false;
	}
	if (tw_report_ended(&watch->report, status))
		report_changed(watch);
	return ended(arg, status, was_ready);
}

static const struct tw_child_ops inspector_ops = {
	.ready = inspector_ready,
	.ended = inspector_ended,
	.stopped = inspector_stopped,
	.line = inspector_says,
};

static struct tw_error *create_inspector(uv_loop_t *loop, struct tw_watch *watch)
{
	const struct tw_disk_spec *spec = watch->spec;
	TW_AUTO_FREE char *program = NULL;
	TW_TRY(tw_path_program("tapwire-inspect", &program));
	char domid[16];
	char ready_fd[16];
	snprintf(domid, sizeof(domid), "%u", spec->id.domid);
	snprintf(ready_fd, sizeof(ready_fd), "%d", TW_CHILD_READY_FD);
	const char *argv[] = { program, "--image", spec->image, "--ring", spec->ring,
		"--courier", spec->courier_socket, "--state", spec->state_dir, "--ready-fd",
		ready_fd, "--status-fd", ready_fd, "--host", spec->id.host, "--domain-uuid", spec->id.domain_uuid,
		"--domain-name", spec->id.domain_name, "--domid", domid, "--vdev", spec->id.vdev,
		NULL, NULL, NULL, NULL };
	size_t n = sizeof(argv) / sizeof(argv[0]) - 4;
	if (spec->tapdisk)
		argv[n++] = "--mirror";
	if (spec->content) {
		argv[n++] = "--content";
		argv[n] = spec->content;
	}
	TW_TRY(tw_child_create(loop, "tapwire-inspect", argv, &inspector_ops, watch, &watch->inspector));
	tw_child_limit(watch->inspector, spec->memory_max, spec->nice);
	return NULL;
}

/* --- the watch --- */

struct tw_error *tw_watch_create(uv_loop_t *loop, struct tw_appear *appear, const struct tw_disk_spec *spec,
	const struct tw_watch_ops *ops, void *arg, struct tw_watch **out)
{
	struct tw_watch *watch = calloc(1, sizeof(*watch));
	if (!watch)
		return tw_error_nomem();
	watch->spec = tw_disk_spec_copy(spec);
	watch->appear = appear;
	watch->ops = ops;
	watch->arg = arg;
	watch->old_ring = access(spec->ring, F_OK) == 0;
	struct tw_error *err = watch->spec ? create_inspector(loop, watch) : tw_error_nomem();
	if (!err && spec->nbd_socket)
		err = create_nbdkit(loop, watch);
	if (!err && spec->tapdisk)
		err = create_mirror(loop, watch);
	if (err)
		tw_watch_destroy(watch);
	else
		*out = watch;
	return err;
}

static void ring_is_there(void *arg)
{
	struct tw_watch *watch = arg;
	watch->ring_wait = NULL;
	start_inspector(watch);
}

static void await_ring(struct tw_watch *watch)
{
	struct tw_error *err =
		tw_appear_wait(watch->appear, watch->spec->ring, ring_is_there, watch, &watch->ring_wait);
	if (err)
		tw_log(TW_LOG_ERROR, watch->spec->name, "%s", tw_error_message(err));
	tw_error_destroy(err);
}

void tw_watch_start(struct tw_watch *watch)
{
	if (watch->nbdkit) {
		make_state_dir(watch); /* for its pidfile */
		/* A supervisor that was killed may have left these. */
		unlink(watch->pidfile);
		unlink(watch->private_socket);
		unlink(watch->spec->nbd_socket);
		tw_child_start(watch->nbdkit);
		return;
	}
	if (watch->mirror) {
		tw_mirror_start(watch->mirror);
		return;
	}
	await_ring(watch);
}

void tw_watch_stop_serving(struct tw_watch *watch)
{
	watch->stopping = true;
	tw_appear_cancel(TW_STEAL(watch->ring_wait));
	if (watch->nbdkit)
		tw_child_stop(watch->nbdkit, NBDKIT_PATIENCE_MS);
	else if (watch->mirror)
		tw_mirror_stop(watch->mirror);
	else
		watch->ops->stopped(watch->arg);
}

/* One that was killed, or that has just started, gets the time to read what is left in the ring; so does one that had
 * yet to start, when there is no later. */
void tw_watch_stop_inspecting(struct tw_watch *watch, bool for_good)
{
	enum tw_child_state state = tw_child_state(watch->inspector);
	bool unread = for_good && state == TW_CHILD_IDLE && access(watch->spec->ring, F_OK) == 0;
	watch->for_good = for_good;
	if (state == TW_CHILD_PAUSING || state == TW_CHILD_STARTING || unread) {
		watch->draining = true;
		make_state_dir(watch);
		if (state != TW_CHILD_STARTING)
			tw_child_start(watch->inspector);
		return;
	}
	tw_child_stop(watch->inspector, DRAIN_PATIENCE_MS);
}

void tw_watch_kill(struct tw_watch *watch)
{
	if (watch->nbdkit)
		tw_child_kill(watch->nbdkit);
	if (watch->mirror)
		tw_mirror_kill(watch->mirror);
	tw_child_kill(watch->inspector);
}

void tw_watch_retry(struct tw_watch *watch)
{
	if (watch->mirror)
		tw_mirror_retry(watch->mirror);
}

/* An emptied ring is of no use, and the image may be changed by others until the next start:
 * without the ring, the next inspector compares the image with what it reported. Nor is a new ring
 * of use that no client could write to. The ring of somebody else's capture point goes with the disk. */
static void remove_ring(const struct tw_watch *watch)
{
	bool ours = watch->nbdkit || watch->mirror;
	bool empty = watch->drained || (ours && !watch->live && !watch->old_ring);
	if (!empty || (!ours && !watch->for_good))
		return;
	int ret = tw_ring_remove(watch->spec->ring);
	if (ret < 0 && ret != -ENOENT && ret != -EBUSY)
		tw_log(TW_LOG_WARN, watch->spec->name, "%s: %s", watch->spec->ring, strerror(-ret));
}

void tw_watch_destroy(struct tw_watch *watch)
{
	if (!watch)
		return;
	if (watch->spec)
		remove_ring(watch);
	tw_child_destroy(watch->nbdkit);
	tw_mirror_destroy(watch->mirror);
	tw_child_destroy(watch->inspector);
	tw_appear_cancel(watch->ring_wait);
	free(watch->trouble);
	free(watch->private_socket);
	free(watch->pidfile);
	tw_disk_spec_free(watch->spec);
	free(watch);
}

/* --- status --- */

const struct tw_disk_spec *tw_watch_spec(const struct tw_watch *watch)
{
	return watch->spec;
}

const struct tw_report *tw_watch_report(const struct tw_watch *watch)
{
	return &watch->told;
}

static void put_inspector_status(const struct tw_watch *watch, struct tw_json *json)
{
	TW_AUTO_FREE char *path = tw_path_join(watch->spec->state_dir, "status.json");
	TW_AUTO_FREE char *text = malloc(STATUS_MAX);
	TW_AUTO_CLOSE int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
	ssize_t n = fd >= 0 && text ? read(fd, text, STATUS_MAX) : 0;
	tw_json_raw(json, "inspector", text, n > 0 ? (size_t)n : 0);
}

static void put_child(const char *key, const struct tw_child *child, struct tw_json *json)
{
	tw_json_open(json, key);
	tw_json_text(json, "state", tw_child_state_name(tw_child_state(child)));
	tw_json_u64(json, "pid", (uint64_t)tw_child_pid(child));
	tw_json_u64(json, "restarts", tw_child_restarts(child));
	tw_json_close(json);
}

void tw_watch_status(const struct tw_watch *watch, struct tw_json *json)
{
	const struct tw_disk_spec *spec = watch->spec;
	tw_json_open(json, NULL);
	tw_json_text(json, "name", spec->name);
	tw_json_text(json, "domain", spec->id.domain_name);
	tw_json_text(json, "vdev", spec->id.vdev);
	tw_json_text(json, "image", spec->image);
	tw_json_text(json, "ring", spec->ring);
	tw_json_bool(json, "live", may_announce(watch));
	tw_json_text(json, "state", tw_report_state_name(watch->told.state));
	if (*watch->told.error)
		tw_json_text(json, "error", watch->told.error);
	if (*watch->told.remark)
		tw_json_text(json, "remark", watch->told.remark);
	if (spec->nbd_socket)
		tw_json_text(json, "socket", spec->nbd_socket);
	tw_json_open(json, "processes");
	if (watch->nbdkit)
		put_child("nbdkit", watch->nbdkit, json);
	put_child("tapwire-inspect", watch->inspector, json);
	tw_json_close(json);
	if (watch->mirror)
		tw_mirror_status(watch->mirror, json);
	put_inspector_status(watch, json);
	tw_json_close(json);
}
