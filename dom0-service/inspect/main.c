/* SPDX-License-Identifier: BSD-3-Clause */
/* tapwire-inspect: the inspector of one disk. */
#include "base/log.h"
#include "cli/disk_options.h"
#include "inspect/live.h"

#include <argp.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sysexits.h>
#include <unistd.h>

enum { KEY_IMAGE = 256, KEY_RING, KEY_COURIER, KEY_STATE, KEY_READY_FD, KEY_STATUS_FD, KEY_MIRROR,
	KEY_CONTENT };

struct arguments {
	struct tw_live_options live;
	struct tw_disk_options disk;
	int ready_fd;
};

static const struct argp_option options[] = {
	{"image", KEY_IMAGE, "PATH", 0, "The disk's image; it is only read", 0},
	{"ring", KEY_RING, "PATH", 0, "The ring of the disk's capture point", 0},
	{"courier", KEY_COURIER, "SOCKET", 0, "The courier's socket", 0},
	{"state", KEY_STATE, "DIR", 0, "The directory of the disk's state", 0},
	{"mirror", KEY_MIRROR, NULL, 0,
		"The ring is filled by the mirror of a tapdisk: its records may be ahead of the image",
		0},
	{"content", KEY_CONTENT, "RULES", 0,
		"Of which files events carry content, as tapwired writes it from its INI file", 0},
	{"ready-fd", KEY_READY_FD, "N", 0,
		"Write a line to this descriptor when the disk is watched", 0},
	{"status-fd", KEY_STATUS_FD, "N", 0,
		"Write a line to this descriptor when the status has changed, or why this ends", 0},
	{0},
};

static int parse_fd(const char *option, const char *text, struct argp_state *state)
{
	char *end;
	errno = 0;
	long fd = strtol(text, &end, 10);
	if (errno || end == text || *end || fd < 0 || fd > 1 << 20)
		argp_error(state, "--%s: '%s' is no descriptor", option, text);
	return (int)fd;
}

static void check_complete(const struct arguments *args, struct argp_state *state)
{
	if (!args->live.image)
		argp_error(state, "--image is missing");
	if (!args->live.ring)
		argp_error(state, "--ring is missing");
	if (!args->live.courier)
		argp_error(state, "--courier is missing");
	if (!args->live.state)
		argp_error(state, "--state is missing");
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
	struct arguments *args = state->input;
	switch (key) {
	case ARGP_KEY_INIT:
		state->child_inputs[0] = &args->disk;
		return 0;
	case KEY_IMAGE:
		args->live.image = arg;
		return 0;
	case KEY_RING:
		args->live.ring = arg;
		return 0;
	case KEY_COURIER:
		args->live.courier = arg;
		return 0;
	case KEY_STATE:
		args->live.state = arg;
		return 0;
	case KEY_MIRROR:
		args->live.mirror = true;
		return 0;
	case KEY_CONTENT:
		args->live.content = arg;
		return 0;
	case KEY_READY_FD:
		args->ready_fd = parse_fd("ready-fd", arg, state);
		return 0;
	case KEY_STATUS_FD:
		args->live.status_fd = parse_fd("status-fd", arg, state);
		return 0;
	case ARGP_KEY_ARG:
		argp_error(state, "too many arguments: %s", arg);
		return 0;
	case ARGP_KEY_END:
		check_complete(args, state);
		return 0;
	}
	return ARGP_ERR_UNKNOWN;
}

static void print_version(FILE *out, struct argp_state *state)
{
	(void)state;
	fprintf(out, "tapwire-inspect " TW_VERSION "\n");
}

static struct tw_error *stop_signals(int *out)
{
	sigset_t set;
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigprocmask(SIG_BLOCK, &set, NULL);
	signal(SIGPIPE, SIG_IGN);
	*out = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	return *out < 0 ? tw_error_errno(errno, "signalfd") : NULL;
}

static void say_ready(const struct arguments *args)
{
	static const char line[] = "ready\n";
	if (args->ready_fd < 0)
		return;
	if (write(args->ready_fd, line, sizeof(line) - 1) < 0)
		tw_log(TW_LOG_WARN, "", "--ready-fd: %s", strerror(errno));
	if (args->ready_fd != args->live.status_fd)
		close(args->ready_fd);
}

/* The last line. What is in it may quote what a guest wrote: it stays one line. */
static void say_error(int fd, const struct tw_error *err)
{
	char line[1024];
	if (fd < 0)
		return;
	int len = snprintf(line, sizeof(line) - 1, "error %s", tw_error_message(err));
	if (len >= (int)sizeof(line) - 1)
		len = (int)sizeof(line) - 2;
	for (int i = 0; i < len; i++)
		if ((unsigned char)line[i] < ' ' || line[i] == 0x7f)
			line[i] = '?';
	line[len++] = '\n';
	(void)!write(fd, line, (size_t)len);
}

static struct tw_error *run(const struct arguments *args)
{
	struct tw_live *live;
	int stop_fd;
	TW_TRY(stop_signals(&stop_fd));
	TW_TRY(tw_live_create(&args->live, &live));
	struct tw_error *err = tw_live_start(live, stop_fd);
	if (!err) {
		say_ready(args);
		err = tw_live_run(live, stop_fd);
	}
	tw_live_destroy(live);
	close(stop_fd);
	return err;
}

int main(int argc, char **argv)
{
	static const struct argp_child children[] = {
		{&tw_disk_argp, 0, "Who the disk is, in every event:", 1}, {0}};
	static const struct argp argp = {
		.options = options,
		.parser = parse,
		.doc = "Turns the writes to one disk into file events.",
		.children = children,
	};
	struct arguments args = {.ready_fd = -1, .live.status_fd = -1};
	argp_program_version_hook = print_version;
	argp_err_exit_status = EX_USAGE;
	tw_log_init("tapwire-inspect", getenv("TAPWIRE_DEBUG") ? TW_LOG_DEBUG : TW_LOG_INFO);
	tw_disk_options_init(&args.disk);
	argp_parse(&argp, argc, argv, 0, NULL, &args);
	args.live.id = args.disk.id;
	if (args.live.status_fd >= 0)
		fcntl(args.live.status_fd, F_SETFL, fcntl(args.live.status_fd, F_GETFL) | O_NONBLOCK);
	struct tw_error *err = run(&args);
	if (!err)
		return EX_OK;
	tw_log(TW_LOG_ERROR, args.disk.id.vdev, "%s", tw_error_message(err));
	say_error(args.live.status_fd, err);
	int status = tw_error_exit_status(err);
	tw_error_destroy(err);
	return status;
}
