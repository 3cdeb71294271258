/* SPDX-License-Identifier: BSD-3-Clause */
#include "supervise/change.h"
#include "supervise/handle.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct tw_change {
	uv_loop_t *loop;
	tw_change_done_fn *done;
	void *arg;
	uv_timer_t *late; /* tells of one that could not be started */
	uv_process_t *process;
	uv_pipe_t *out;
	bool runs;
	size_t nsaid;
	char said[512];
};

static void finish(struct tw_change *change, int status)
{
	tw_handle_close(&change->out);
	tw_handle_close(&change->process);
	change->said[change->nsaid] = '\0';
	change->said[strcspn(change->said, "\n")] = '\0';
	change->runs = false;
	change->done(change->arg, status, change->said);
}

/* Its end may be seen before its last word. */
static void read_rest(struct tw_change *change)
{
	uv_os_fd_t fd;
	ssize_t n;
	if (uv_fileno((uv_handle_t *)change->out, &fd) < 0)
		return;
	while ((n = read(fd, change->said + change->nsaid,
			sizeof(change->said) - 1 - change->nsaid)) > 0)
		change->nsaid += (size_t)n;
}

static void on_exit_status(uv_process_t *process, int64_t status, int sig)
{
	struct tw_change *change = process->data;
	read_rest(change);
	finish(change, sig ? 128 + sig : (int)status);
}

static void on_late(uv_timer_t *timer)
{
	finish(timer->data, TW_SWITCH_FAILED);
}

/* The process keeps the pipe's other end: without one it would write to whoever has standard output. */
static int spawn(struct tw_change *change, const struct tw_mirror_switch *what)
{
	const char *argv[TW_SWITCH_ARGS];
	tw_tapctl_args(what, argv);
	uv_stdio_container_t stdio[3] = {
		{ .flags = UV_IGNORE },
		{ .flags = UV_CREATE_PIPE | UV_WRITABLE_PIPE | UV_NONBLOCK_PIPE,
			.data.stream = (uv_stream_t *)change->out },
		{ .flags = UV_INHERIT_FD, .data.fd = STDERR_FILENO },
	};
	/* In a session of its own: nobody's signals but its own end it. */
	uv_process_options_t options = {
		.exit_cb = on_exit_status,
		.file = "/proc/self/exe",
		.args = (char **)argv,
		.stdio = stdio,
		.stdio_count = 3,
		.flags = UV_PROCESS_DETACHED,
	};
	change->process->data = change;
	return uv_spawn(change->loop, change->process, &options);
}

void tw_change_start(struct tw_change *change, const struct tw_mirror_switch *what)
{
	if (change->runs)
		return;
	change->runs = true;
	change->nsaid = 0;
	change->process = calloc(1, sizeof(*change->process));
	change->out = calloc(1, sizeof(*change->out));
	int ret = UV_ENOMEM;
	if (change->process && change->out) {
		uv_pipe_init(change->loop, change->out, 0);
		ret = spawn(change, what);
	} else {
		free(change->process);
		free(change->out);
		change->process = NULL;
		change->out = NULL;
	}
	if (ret == 0)
		return;
	change->nsaid = (size_t)snprintf(change->said, sizeof(change->said),
		"cannot start a process: %s", uv_strerror(ret));
	uv_timer_start(change->late, on_late, 0, 0);
}

bool tw_change_runs(const struct tw_change *change)
{
	return change->runs;
}

struct tw_error *tw_change_create(
	uv_loop_t *loop, tw_change_done_fn *done, void *arg, struct tw_change **out)
{
	struct tw_change *change = calloc(1, sizeof(*change));
	if (!change)
		return tw_error_nomem();
	change->loop = loop;
	change->done = done;
	change->arg = arg;
	change->late = calloc(1, sizeof(*change->late));
	if (!change->late) {
		free(change);
		return tw_error_nomem();
	}
	uv_timer_init(loop, change->late);
	change->late->data = change;
	*out = change;
	return NULL;
}

void tw_change_destroy(struct tw_change *change)
{
	if (!change)
		return;
	tw_handle_close(&change->late);
	tw_handle_close(&change->out);
	tw_handle_close(&change->process);
	free(change);
}
