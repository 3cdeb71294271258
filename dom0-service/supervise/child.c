/* SPDX-License-Identifier: BSD-3-Clause */
#include "supervise/child.h"
#include "base/buf.h"
#include "base/log.h"
#include "base/scope.h"
#include "supervise/handle.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sysexits.h>
#include <unistd.h>

#define PROBE_MS 20
#define PAUSE_FIRST_MS 100
#define PAUSE_MAX_MS 30000
/* A child that lived this long was well: its next pause is the first one again. */
#define WELL_MS 60000
#define EXEC_FAILED 127
/* A longer line is a child's mistake, and is dropped. */
#define LINE_MAX_BYTES 4096

static const char step_name[] = "tapwire: child";

struct tw_child {
	uv_loop_t *loop;
	char *name;
	char **argv;
	const struct tw_child_ops *ops;
	void *arg;
	enum tw_child_state state;
	bool was_ready;
	unsigned restarts;
	uint64_t pause_ms;
	uint64_t started_at;   /* the loop's clock, ms */
	uv_process_t *process; /* NULL when nothing runs */
	uv_pipe_t *ready_pipe;
	uint64_t memory_max;
	int nice;
	struct tw_buf lines; /* what the child has written and has not ended yet */
	uv_timer_t *timer; /* the probe's, the pause's or the patience's: one at a time */
};

/* --- the step between fork and exec --- */

void tw_child_main(int argc, char **argv)
{
	if (argc < 3 || strcmp(argv[0], step_name) != 0)
		return;
	unsigned long long memory_max = 0;
	int parent = 0, niceness = 0;
	prctl(PR_SET_PDEATHSIG, SIGTERM);
	if (sscanf(argv[1], "%d %llu %d", &parent, &memory_max, &niceness) != 3 || getppid() != (pid_t)parent)
		_exit(EXEC_FAILED); /* the supervisor died before the line above */
	if (memory_max)
		setrlimit(RLIMIT_DATA, &(struct rlimit){ memory_max, memory_max });
	if (niceness)
		setpriority(PRIO_PROCESS, 0, niceness);
	execv(argv[2], argv + 2);
	fprintf(stderr, "tapwire: %s: %s\n", argv[2], strerror(errno));
	_exit(EXEC_FAILED);
}

/* --- memory --- */

static void free_argv(char **argv)
{
	for (char **a = argv; a && *a; a++)
		free(*a);
	free(argv);
}

static char **copy_argv(const char *const *argv)
{
	size_t n = 0;
	while (argv[n])
		n++;
	char **copy = calloc(n + 1, sizeof(*copy));
	for (size_t i = 0; copy && i < n; i++) {
		copy[i] = strdup(argv[i]);
		if (!copy[i]) {
			free_argv(copy);
			return NULL;
		}
	}
	return copy;
}

struct tw_error *tw_child_create(uv_loop_t *loop, const char *name, const char *const *argv,
	const struct tw_child_ops *ops, void *arg, struct tw_child **out)
{
	struct tw_child *child = calloc(1, sizeof(*child));
	if (!child)
		return tw_error_nomem();
	*child = (struct tw_child){
		.loop = loop,
		.name = strdup(name),
		.argv = copy_argv(argv),
		.ops = ops,
		.arg = arg,
		.pause_ms = PAUSE_FIRST_MS,
		.timer = malloc(sizeof(uv_timer_t)),
	};
	if (child->timer) {
		uv_timer_init(loop, child->timer);
		child->timer->data = child;
	}
	if (!child->name || !child->argv || !child->timer) {
		tw_child_destroy(child);
		return tw_error_nomem();
	}
	*out = child;
	return NULL;
}

void tw_child_destroy(struct tw_child *child)
{
	if (!child)
		return;
	tw_handle_close(&child->ready_pipe);
	tw_handle_close(&child->process);
	tw_handle_close(&child->timer);
	tw_buf_deinit(&child->lines);
	free(child->name);
	free_argv(child->argv);
	free(child);
}

/* --- readiness --- */

static void become_ready(struct tw_child *child)
{
	if (child->state != TW_CHILD_STARTING)
		return;
	child->state = TW_CHILD_LIVE;
	child->was_ready = true;
	uv_timer_stop(child->timer);
	if (child->ops->ready)
		child->ops->ready(child->arg);
}

static void on_probe(uv_timer_t *timer)
{
	struct tw_child *child = timer->data;
	if (child->ops->probe(child->arg))
		become_ready(child);
}

static void give_buffer(uv_handle_t *handle, size_t size, uv_buf_t *buf)
{
	(void)size;
	static char some[256]; /* looked at before anything else is read */
	(void)handle;
	*buf = uv_buf_init(some, sizeof(some));
}

static void take_line(struct tw_child *child, const char *line)
{
	if (!child->ops->line || strcmp(line, "ready") == 0)
		become_ready(child);
	else
		child->ops->line(child->arg, line);
}

/* Handing a line on may close the pipe, but not free the child. */
static void take_lines(struct tw_child *child)
{
	char *end;
	while (child->lines.len && (end = memchr(child->lines.data, '\n', child->lines.len))) {
		char line[LINE_MAX_BYTES];
		size_t len = (size_t)(end - child->lines.data);
		snprintf(line, sizeof(line), "%.*s", (int)len, child->lines.data);
		tw_buf_consume(&child->lines, len + 1);
		if (!child->ops->line)
			tw_handle_close(&child->ready_pipe);
		take_line(child, line);
	}
	if (child->lines.len >= LINE_MAX_BYTES)
		tw_buf_reset(&child->lines);
}

static void on_pipe_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *buf)
{
	struct tw_child *child = stream->data;
	if (n < 0) {
		tw_handle_close(&child->ready_pipe);
		return;
	}
	tw_buf_append(&child->lines, buf->base, (size_t)n);
	take_lines(child);
}

/* --- start and end --- */

static void start_again(uv_timer_t *timer)
{
	struct tw_child *child = timer->data;
	child->restarts++;
	tw_child_start(child);
}

static void pause_then_start(struct tw_child *child)
{
	if (uv_now(child->loop) - child->started_at >= WELL_MS)
		child->pause_ms = PAUSE_FIRST_MS;
	child->state = TW_CHILD_PAUSING;
	tw_log(TW_LOG_WARN, "", "%s: starting again in %.1f s", child->name,
		(double)child->pause_ms / 1000);
	uv_timer_start(child->timer, start_again, child->pause_ms, 0);
	child->pause_ms *= 2;
	if (child->pause_ms > PAUSE_MAX_MS)
		child->pause_ms = PAUSE_MAX_MS;
}

/* Its last words may come after the news of its end. "ready" is none of them: it is too late for that. */
static void read_rest(struct tw_child *child)
{
	char some[256];
	uv_os_fd_t fd;
	ssize_t n = 0;
	if (!child->ready_pipe || !child->ops->line || uv_fileno((uv_handle_t *)child->ready_pipe, &fd) < 0)
		return;
	for (int i = 0; i < 64 && (n = read(fd, some, sizeof(some))) > 0; i++)
		tw_buf_append(&child->lines, some, (size_t)n);
	child->state = TW_CHILD_IDLE;
	take_lines(child);
}

static void handle_end(struct tw_child *child, int status)
{
	bool asked = child->state == TW_CHILD_STOPPING;
	uv_timer_stop(child->timer);
	read_rest(child);
	tw_handle_close(&child->ready_pipe);
	tw_handle_close(&child->process);
	tw_buf_reset(&child->lines);
	child->state = TW_CHILD_IDLE;
	if (asked) {
		if (child->ops->stopped)
			child->ops->stopped(child->arg, status);
		return;
	}
	/* One that ends with a status of sysexits.h has said why. */
	bool told = !child->was_ready && status >= EX__BASE && status <= EX__MAX;
	if (told)
		tw_log(TW_LOG_DEBUG, "", "%s: ended with status %d", child->name, status);
	else if (status > 128)
		tw_log(TW_LOG_ERROR, "", "%s: killed by signal %d", child->name, status - 128);
	else
		tw_log(TW_LOG_ERROR, "", "%s: ended with status %d", child->name, status);
	if (!child->ops->ended || child->ops->ended(child->arg, status, child->was_ready))
		pause_then_start(child);
}

static void on_exit_status(uv_process_t *process, int64_t status, int sig)
{
	handle_end(process->data, sig ? 128 + sig : (int)status);
}

static void on_late_failure(uv_timer_t *timer)
{
	handle_end(timer->data, EXEC_FAILED);
}

/* stdin is /dev/null, stdout and stderr are the supervisor's. */
static int spawn(struct tw_child *child, char **args)
{
	uv_stdio_container_t stdio[TW_CHILD_READY_FD + 1] = {
		{ .flags = UV_IGNORE },
		{ .flags = UV_INHERIT_FD, .data.fd = STDERR_FILENO },
		{ .flags = UV_INHERIT_FD, .data.fd = STDERR_FILENO },
		{ .flags = UV_IGNORE },
	};
	if (child->ready_pipe) {
		stdio[TW_CHILD_READY_FD].flags = UV_CREATE_PIPE | UV_WRITABLE_PIPE;
		stdio[TW_CHILD_READY_FD].data.stream = (uv_stream_t *)child->ready_pipe;
	}
	uv_process_options_t options = {
		.exit_cb = on_exit_status,
		.file = "/proc/self/exe",
		.args = args,
		.stdio = stdio,
		.stdio_count = child->ready_pipe ? 4 : 3,
		/* A session of its own: a terminal's Ctrl-C is for the supervisor, which ends its
		 * children in order. */
		.flags = UV_PROCESS_DETACHED,
	};
	child->process->data = child;
	int ret = uv_spawn(child->loop, child->process, &options);
	if (ret == 0 && child->ready_pipe)
		ret = uv_read_start((uv_stream_t *)child->ready_pipe, give_buffer, on_pipe_read);
	return ret;
}

static char **step_args(const struct tw_child *child, char *about)
{
	size_t n = 0;
	while (child->argv[n])
		n++;
	char **args = calloc(n + 3, sizeof(*args));
	if (!args)
		return NULL;
	args[0] = (char *)step_name;
	args[1] = about;
	memcpy(args + 2, child->argv, n * sizeof(*args));
	return args;
}

static int try_start(struct tw_child *child)
{
	char about[64];
	snprintf(about, sizeof(about), "%d %" PRIu64 " %d", (int)getpid(), child->memory_max, child->nice);
	TW_AUTO_FREE char **args = step_args(child, about);
	child->process = calloc(1, sizeof(uv_process_t));
	if (!args || !child->process) {
		free(child->process);
		child->process = NULL;
		return UV_ENOMEM;
	}
	if (!child->ops->probe) {
		child->ready_pipe = calloc(1, sizeof(uv_pipe_t));
		if (child->ready_pipe) {
			uv_pipe_init(child->loop, child->ready_pipe, 0);
			child->ready_pipe->data = child;
		}
	}
	return spawn(child, args);
}

void tw_child_start(struct tw_child *child)
{
	uv_timer_stop(child->timer); /* a pause that is cut short */
	child->state = TW_CHILD_STARTING;
	child->was_ready = false;
	uv_update_time(child->loop);
	child->started_at = uv_now(child->loop);
	int ret = try_start(child);
	if (ret < 0) {
		tw_log(TW_LOG_ERROR, "", "%s: cannot start: %s", child->name, uv_strerror(ret));
		uv_timer_start(child->timer, on_late_failure, 0, 0);
	} else if (child->ops->probe) {
		uv_timer_start(child->timer, on_probe, PROBE_MS, PROBE_MS);
	}
}

void tw_child_limit(struct tw_child *child, uint64_t memory_max, int nice)
{
	child->memory_max = memory_max;
	child->nice = nice;
}

static void on_patience_end(uv_timer_t *timer)
{
	struct tw_child *child = timer->data;
	tw_log(TW_LOG_WARN, "", "%s: does not end; killing it", child->name);
	tw_child_kill(child);
}

void tw_child_stop(struct tw_child *child, uint64_t patience_ms)
{
	uv_timer_stop(child->timer);
	bool runs = child->process &&
		    (child->state == TW_CHILD_STARTING || child->state == TW_CHILD_LIVE);
	if (!runs && child->state != TW_CHILD_STOPPING) {
		child->state = TW_CHILD_IDLE;
		tw_handle_close(&child->process);
		if (child->ops->stopped)
			child->ops->stopped(child->arg, -1);
		return;
	}
	child->state = TW_CHILD_STOPPING;
	uv_process_kill(child->process, SIGTERM);
	uv_timer_start(child->timer, on_patience_end, patience_ms, 0);
}

void tw_child_kill(struct tw_child *child)
{
	if (child->process && uv_process_get_pid(child->process) > 0)
		uv_process_kill(child->process, SIGKILL);
}

/* --- questions --- */

enum tw_child_state tw_child_state(const struct tw_child *child)
{
	return child->state;
}

const char *tw_child_state_name(enum tw_child_state state)
{
	static const char *const names[] = { "idle", "starting", "live", "pausing", "stopping" };
	return names[state];
}

int tw_child_pid(const struct tw_child *child)
{
	return child->process ? (int)uv_process_get_pid(child->process) : 0;
}

unsigned tw_child_restarts(const struct tw_child *child)
{
	return child->restarts;
}
