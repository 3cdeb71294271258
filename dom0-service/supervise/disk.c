/* SPDX-License-Identifier: BSD-3-Clause */
#include "supervise/disk.h"
#include "base/log.h"
#include "base/scope.h"
#include "supervise/child.h"
#include "supervise/paths.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define RING_POLL_MS 500
/* nbdkit finishes what it has begun, but it waits for its clients to go, too: one that stays must
 * not keep the service. The ring survives the kill. */
#define NBDKIT_PATIENCE_MS 2000
#define DRAIN_PATIENCE_MS 60000
#define STATUS_MAX (256 << 10)

struct tw_watch {
	const struct tw_disk_spec *spec;
	const struct tw_watch_ops *ops;
	void *arg;
	struct tw_child *nbdkit; /* NULL without */
	struct tw_child *inspector;
	uv_timer_t *ring_timer;
	char *private_socket;
	char *pidfile; /* nbdkit writes it when it accepts connections */
	bool live;     /* for the first time */
	bool stopping;
	bool old_ring; /* the ring was there before: it may hold writes */
	bool draining; /* the inspector is to end as soon as it is ready */
	bool drained;  /* the inspector ended as asked: the ring is empty */
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
	       (!watch->nbdkit || tw_child_state(watch->nbdkit) == TW_CHILD_LIVE);
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

static void start_inspector(struct tw_watch *watch)
{
	if (tw_child_state(watch->inspector) == TW_CHILD_IDLE)
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

/* --- the inspector --- */

static void inspector_ready(void *arg)
{
	struct tw_watch *watch = arg;
	if (watch->draining)
		tw_child_stop(watch->inspector, DRAIN_PATIENCE_MS);
	else
		announce(watch);
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
	const struct tw_watch *watch = arg;
	if (!watch->draining)
		return ended(arg, status, was_ready);
	inspector_stopped(arg, status);
	return false;
}

static const struct tw_child_ops inspector_ops = {
	.ready = inspector_ready,
	.ended = inspector_ended,
	.stopped = inspector_stopped,
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
	const char *const argv[] = { program, "--image", spec->image, "--ring", spec->ring,
		"--courier", spec->courier_socket, "--state", spec->state_dir, "--ready-fd",
		ready_fd, "--host", spec->id.host, "--domain-uuid", spec->id.domain_uuid,
		"--domain-name", spec->id.domain_name, "--domid", domid, "--vdev", spec->id.vdev,
		NULL };
	return tw_child_create(
		loop, "tapwire-inspect", argv, &inspector_ops, watch, &watch->inspector);
}

/* --- the watch --- */

static void free_timer(uv_handle_t *handle)
{
	free(handle);
}

static struct tw_error *create_timer(uv_loop_t *loop, struct tw_watch *watch)
{
	watch->ring_timer = calloc(1, sizeof(*watch->ring_timer));
	if (!watch->ring_timer)
		return tw_error_nomem();
	uv_timer_init(loop, watch->ring_timer);
	watch->ring_timer->data = watch;
	return NULL;
}

struct tw_error *tw_watch_create(uv_loop_t *loop, const struct tw_disk_spec *spec,
	const struct tw_watch_ops *ops, void *arg, struct tw_watch **out)
{
	struct tw_watch *watch = calloc(1, sizeof(*watch));
	if (!watch)
		return tw_error_nomem();
	watch->spec = spec;
	watch->old_ring = access(spec->ring, F_OK) == 0;
	watch->ops = ops;
	watch->arg = arg;
	struct tw_error *err = create_timer(loop, watch);
	if (!err)
		err = create_inspector(loop, watch);
	if (!err && spec->nbd_socket)
		err = create_nbdkit(loop, watch);
	if (err)
		tw_watch_destroy(watch);
	else
		*out = watch;
	return err;
}

static void on_ring_poll(uv_timer_t *timer)
{
	struct tw_watch *watch = timer->data;
	if (access(watch->spec->ring, F_OK) < 0)
		return;
	uv_timer_stop(timer);
	start_inspector(watch);
}

void tw_watch_start(struct tw_watch *watch)
{
	if (watch->nbdkit) {
		/* A supervisor that was killed may have left these. */
		unlink(watch->pidfile);
		unlink(watch->private_socket);
		unlink(watch->spec->nbd_socket);
		tw_child_start(watch->nbdkit);
		return;
	}
	uv_timer_start(watch->ring_timer, on_ring_poll, 0, RING_POLL_MS);
}

void tw_watch_stop_serving(struct tw_watch *watch)
{
	watch->stopping = true;
	uv_timer_stop(watch->ring_timer);
	if (watch->nbdkit)
		tw_child_stop(watch->nbdkit, NBDKIT_PATIENCE_MS);
	else
		watch->ops->stopped(watch->arg);
}

/* One that was killed, or that has just started, gets the time to read what is left in the ring. */
void tw_watch_stop_inspecting(struct tw_watch *watch)
{
	enum tw_child_state state = tw_child_state(watch->inspector);
	if (state == TW_CHILD_PAUSING || state == TW_CHILD_STARTING) {
		watch->draining = true;
		if (state == TW_CHILD_PAUSING)
			tw_child_start(watch->inspector);
		return;
	}
	tw_child_stop(watch->inspector, DRAIN_PATIENCE_MS);
}

void tw_watch_kill(struct tw_watch *watch)
{
	if (watch->nbdkit)
		tw_child_kill(watch->nbdkit);
	tw_child_kill(watch->inspector);
}

/* An emptied ring is of no use, and the image may be changed by others until the next start:
 * without the ring, the next inspector compares the image with what it reported. Nor is a new ring
 * of use that no client could write to. */
static void remove_ring(const struct tw_watch *watch)
{
	static const char *const suffixes[] = { "", ".bell", ".cursor" };
	bool empty = watch->live ? watch->drained : !watch->old_ring;
	if (!watch->nbdkit || !empty)
		return;
	for (size_t i = 0; i < sizeof(suffixes) / sizeof(suffixes[0]); i++) {
		TW_AUTO_FREE char *path = NULL;
		if (asprintf(&path, "%s%s", watch->spec->ring, suffixes[i]) < 0)
			path = NULL;
		else
			unlink(path);
	}
}

void tw_watch_destroy(struct tw_watch *watch)
{
	if (!watch)
		return;
	remove_ring(watch);
	tw_child_destroy(watch->nbdkit);
	tw_child_destroy(watch->inspector);
	if (watch->ring_timer)
		uv_close((uv_handle_t *)watch->ring_timer, free_timer);
	free(watch->private_socket);
	free(watch->pidfile);
	free(watch);
}

/* --- status --- */

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
	if (spec->nbd_socket)
		tw_json_text(json, "socket", spec->nbd_socket);
	tw_json_open(json, "processes");
	if (watch->nbdkit)
		put_child("nbdkit", watch->nbdkit, json);
	put_child("tapwire-inspect", watch->inspector, json);
	tw_json_close(json);
	put_inspector_status(watch, json);
	tw_json_close(json);
}
