/* SPDX-License-Identifier: BSD-3-Clause */
#include "supervise/taps.h"
#include "base/buf.h"
#include "base/scope.h"
#include "supervise/handle.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* It asks every tapdisk in turn; one that does not answer costs it seconds. */
#define PATIENCE_MS 10000
#define READ_BYTES 65536
/* A line is a hundred bytes or so. */
#define ANSWER_MAX (16u << 20)

struct tw_taps {
	uv_loop_t *loop;
	tw_taps_listed_fn *listed;
	void *arg;
	uv_timer_t *timer; /* while one runs: its end; else, at once: tells of one that could not be started */
	uv_process_t *process;
	uv_pipe_t *out;
	char *tap_ctl;
	struct tw_buf said;
	bool late;
	char why[512];
};

/* --- what it said --- */

static struct tw_error *parse(char *text, struct tw_vbd **out, size_t *n)
{
	struct tw_vbd *disks = NULL;
	size_t room = 0;
	*n = 0;
	for (char *line; (line = strsep(&text, "\n"));) {
		if (*n == room) {
			room = room ? 2 * room : 64;
			struct tw_vbd *grown = reallocarray(disks, room, sizeof(*disks));
			if (!grown) {
				free(disks);
				return tw_error_nomem();
			}
			disks = grown;
		}
		*n += tw_vbd_parse(line, &disks[*n]);
	}
	*out = disks;
	return NULL;
}

static void tell(struct tw_taps *taps)
{
	TW_AUTO_FREE struct tw_vbd *disks = NULL;
	size_t n = 0;
	tw_buf_append(&taps->said, "", 1);
	struct tw_error *err = taps->said.failed ? tw_error_nomem() : NULL;
	if (!err && !*taps->why)
		err = parse(taps->said.data, &disks, &n);
	if (err)
		snprintf(taps->why, sizeof(taps->why), "%s", tw_error_message(err));
	tw_error_destroy(err);
	taps->listed(taps->arg, disks, n, *taps->why ? taps->why : NULL);
}

static void finish(struct tw_taps *taps)
{
	uv_timer_stop(taps->timer);
	tw_handle_close(&taps->out);
	tw_handle_close(&taps->process);
	tell(taps);
}

/* --- the process --- */

/* Its end may be seen before its last word. */
static void read_rest(struct tw_taps *taps)
{
	uv_os_fd_t fd;
	char text[4096];
	ssize_t n;
	if (uv_fileno((uv_handle_t *)taps->out, &fd) < 0)
		return;
	while ((n = read(fd, text, sizeof(text))) > 0)
		tw_buf_append(&taps->said, text, (size_t)n);
}

static void on_exit_status(uv_process_t *process, int64_t status, int sig)
{
	struct tw_taps *taps = process->data;
	read_rest(taps);
	if (taps->late)
		snprintf(taps->why, sizeof(taps->why),
			"%s list has not answered in %d s: a tapdisk hangs, see to its storage", taps->tap_ctl,
			PATIENCE_MS / 1000);
	else if (status || sig)
		snprintf(taps->why, sizeof(taps->why), "%s list: %s %d%s", taps->tap_ctl,
			sig ? "ended by signal" : "exit status", sig ? sig : (int)status,
			geteuid() ? "; it is for root only" : "");
	finish(taps);
}

static void on_timer(uv_timer_t *timer)
{
	struct tw_taps *taps = timer->data;
	if (!taps->process) {
		finish(taps);
		return;
	}
	taps->late = true;
	uv_process_kill(taps->process, SIGKILL);
}

static void give_buffer(uv_handle_t *handle, size_t size, uv_buf_t *buf)
{
	struct tw_taps *taps = handle->data;
	(void)size;
	void *at = taps->said.len < ANSWER_MAX ? tw_buf_reserve(&taps->said, READ_BYTES) : NULL;
	*buf = uv_buf_init(at, at ? READ_BYTES : 0);
}

static void on_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *buf)
{
	struct tw_taps *taps = stream->data;
	(void)buf;
	if (n > 0)
		taps->said.len += (size_t)n;
	else if (n < 0)
		uv_read_stop(stream);
}

static int spawn(struct tw_taps *taps)
{
	const char *argv[] = { taps->tap_ctl, "list", NULL };
	uv_stdio_container_t stdio[3] = {
		{ .flags = UV_IGNORE },
		{ .flags = UV_CREATE_PIPE | UV_WRITABLE_PIPE | UV_NONBLOCK_PIPE,
			.data.stream = (uv_stream_t *)taps->out },
		{ .flags = UV_INHERIT_FD, .data.fd = STDERR_FILENO },
	};
	const uv_process_options_t options = {
		.exit_cb = on_exit_status,
		.file = taps->tap_ctl,
		.args = (char **)argv,
		.stdio = stdio,
		.stdio_count = 3,
	};
	taps->process->data = taps->out->data = taps;
	int ret = uv_spawn(taps->loop, taps->process, &options);
	return ret < 0 ? ret : uv_read_start((uv_stream_t *)taps->out, give_buffer, on_read);
}

static void start(struct tw_taps *taps)
{
	taps->late = false;
	taps->why[0] = '\0';
	tw_buf_reset(&taps->said);
	taps->process = calloc(1, sizeof(*taps->process));
	taps->out = calloc(1, sizeof(*taps->out));
	int ret = UV_ENOMEM;
	if (taps->process && taps->out) {
		uv_pipe_init(taps->loop, taps->out, 0);
		ret = spawn(taps);
	} else {
		free(TW_STEAL(taps->process));
		free(TW_STEAL(taps->out));
	}
	uv_timer_start(taps->timer, on_timer, ret < 0 ? 0 : PATIENCE_MS, 0);
	if (ret == 0)
		return;
	snprintf(taps->why, sizeof(taps->why), "%s: %s%s", taps->tap_ctl, uv_strerror(ret),
		ret == UV_ENOENT ? "; install blktap, or name it with tap_ctl in [service]" : "");
	tw_handle_close(&taps->process);
	tw_handle_close(&taps->out);
}

/* --- the whole --- */

void tw_taps_ask(struct tw_taps *taps, const char *tap_ctl)
{
	if (tw_taps_runs(taps))
		return;
	free(taps->tap_ctl);
	taps->tap_ctl = strdup(tap_ctl);
	if (taps->tap_ctl)
		start(taps);
}

bool tw_taps_runs(const struct tw_taps *taps)
{
	/* Also while one that took too long comes to its end. */
	return taps->process || uv_is_active((uv_handle_t *)taps->timer);
}

struct tw_error *tw_taps_create(uv_loop_t *loop, tw_taps_listed_fn *listed, void *arg, struct tw_taps **out)
{
	struct tw_taps *taps = calloc(1, sizeof(*taps));
	if (!taps)
		return tw_error_nomem();
	taps->loop = loop;
	taps->listed = listed;
	taps->arg = arg;
	taps->timer = calloc(1, sizeof(*taps->timer));
	if (!taps->timer) {
		free(taps);
		return tw_error_nomem();
	}
	uv_timer_init(loop, taps->timer);
	taps->timer->data = taps;
	*out = taps;
	return NULL;
}

void tw_taps_destroy(struct tw_taps *taps)
{
	if (!taps)
		return;
	if (taps->process)
		uv_process_kill(taps->process, SIGKILL);
	tw_handle_close(&taps->timer);
	tw_handle_close(&taps->out);
	tw_handle_close(&taps->process);
	tw_buf_deinit(&taps->said);
	free(taps->tap_ctl);
	free(taps);
}

/* --- which one --- */

const struct tw_vbd *tw_taps_find(const struct tw_vbd *disks, size_t n, int pid, int minor, const char *image)
{
	struct stat file;
	if (minor < 0 && (!image || stat(image, &file) < 0))
		return NULL;
	for (size_t i = 0; i < n; i++)
		if (minor < 0 ? tw_tapctl_is_file(disks[i].path, &file)
			      : disks[i].minor == minor && (pid < 0 || disks[i].pid == pid))
			return &disks[i];
	return NULL;
}
