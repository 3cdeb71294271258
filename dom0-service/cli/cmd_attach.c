/* SPDX-License-Identifier: BSD-3-Clause */
/* attach and detach: an unmodified tapdisk's disk is watched while its guest runs. */
#include "cli/commands.h"
#include "base/buf.h"
#include "base/scope.h"
#include "cli/service_options.h"
#include "event/json.h"
#include "supervise/paths.h"
#include "supervise/tapctl.h"
#include "supervise/watchdog.h"

#include <argp.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DEFAULT_STALL_MS 500
#define DEFAULT_TRIES 10

enum { OPT_TAPDISK = 0x300, OPT_TAP_CTL, OPT_STALL, OPT_TRIES, OPT_JSON };

#define TAPDISK_OPTIONS                                                                            \
	{ "tapdisk", OPT_TAPDISK, "PID:MINOR", 0,                                                  \
		"The tapdisk (default: auto, the one that serves IMAGE)", 0 },                     \
	{                                                                                          \
		"tap-ctl", OPT_TAP_CTL, "PROGRAM", 0, "tapdisk's own tool (default: in PATH)", 0   \
	}

static unsigned parse_number(const char *name, const char *text, unsigned min, unsigned max,
	const struct argp_state *state)
{
	char *end;
	unsigned long n = strtoul(text, &end, 10);
	if (end == text || *end || n < min || n > max)
		argp_error(state, "--%s: not a number from %u to %u: %s", name, min, max, text);
	return (unsigned)n;
}

static const char *parse_tapdisk(const char *text, const struct argp_state *state)
{
	int pid, minor;
	if (!tw_vbd_parse_target(text, &pid, &minor))
		argp_error(state, "--tapdisk: neither PID:MINOR nor auto: %s", text);
	return text;
}

/* given: a path or a name, or NULL. The caller frees *out. */
static struct tw_error *find_tap_ctl(const char *given, char **out)
{
	if (!given || !strchr(given, '/'))
		return tw_path_program(given ? given : "tap-ctl", out);
	*out = realpath(given, NULL);
	return *out ? NULL : tw_error_create(TW_UNAVAILABLE, "%s: not found", given);
}

/* --- attach --- */

static error_t parse_attach(int key, char *arg, struct argp_state *state)
{
	struct tw_service_options *opts = state->input;
	switch (key) {
	case ARGP_KEY_INIT:
		state->child_inputs[0] = opts;
		return 0;
	case OPT_TAPDISK:
		opts->serve.tapdisk = parse_tapdisk(arg, state);
		return 0;
	case OPT_TAP_CTL:
		opts->serve.tap_ctl = arg;
		return 0;
	case OPT_STALL:
		opts->serve.stall_ms =
			parse_number("stall", arg, TW_WATCHDOG_MIN_MS, 3600000, state);
		return 0;
	case OPT_TRIES:
		opts->serve.tries = parse_number("tries", arg, 1, 1000000, state);
		return 0;
	}
	return ARGP_ERR_UNKNOWN;
}

struct tw_error *tw_cmd_attach(int argc, char **argv)
{
	static const struct argp_option options[] = {
		TAPDISK_OPTIONS,
		{ "stall", OPT_STALL, "MS", 0,
			"Kill a sink that keeps a write waiting for so long (default: 500)", 0 },
		{ "tries", OPT_TRIES, "N", 0,
			"Give the mirror up after N failures in a row (default: 10)", 0 },
		{ 0 },
	};
	static const struct argp_child children[] = { { .argp = &tw_service_argp }, { 0 } };
	static const struct argp argp = {
		.options = options,
		.parser = parse_attach,
		.args_doc = "IMAGE",
		.doc = "Watch a disk that an unmodified tapdisk serves, while its guest runs, and post "
		       "what changes in its files.\v"
		       "A mirror is put under the tapdisk, for which the guest's requests are held for a "
		       "moment. One line on standard output tells that the disk is watched. SIGINT and "
		       "SIGTERM take the mirror away again.",
		.children = children,
	};
	TW_AUTO_FREE char *tap_ctl = NULL;
	struct tw_service_options opts;
	tw_service_options_init(&opts);
	opts.serve.tapdisk = "auto";
	opts.serve.stall_ms = DEFAULT_STALL_MS;
	opts.serve.tries = DEFAULT_TRIES;
	argp_parse(&argp, argc, argv, 0, NULL, &opts);
	TW_TRY(find_tap_ctl(opts.serve.tap_ctl, &tap_ctl));
	opts.serve.tap_ctl = tap_ctl;
	return tw_service_run(&opts);
}

/* --- detach --- */

struct detach {
	const char *image;
	const char *tapdisk;
	const char *tap_ctl;
	bool json;
};

static error_t parse_detach(int key, char *arg, struct argp_state *state)
{
	struct detach *detach = state->input;
	switch (key) {
	case OPT_TAPDISK:
		detach->tapdisk = parse_tapdisk(arg, state);
		return 0;
	case OPT_TAP_CTL:
		detach->tap_ctl = arg;
		return 0;
	case OPT_JSON:
		detach->json = true;
		return 0;
	case ARGP_KEY_ARG:
		if (detach->image)
			argp_error(state, "one IMAGE at a time");
		detach->image = arg;
		return 0;
	case ARGP_KEY_NO_ARGS:
		argp_error(state, "IMAGE is missing");
		return 0;
	}
	return ARGP_ERR_UNKNOWN;
}

static struct tw_error *print_detached(bool as_json, const char *tapdisk)
{
	struct tw_buf out = TW_BUF_INIT;
	struct tw_json json;
	if (!as_json) {
		printf("tapdisk %s has no mirror\n", tapdisk);
		return NULL;
	}
	tw_json_begin(&json, &out);
	tw_json_open(&json, NULL);
	tw_json_bool(&json, "detached", true);
	tw_json_text(&json, "tapdisk", tapdisk);
	tw_json_close(&json);
	struct tw_error *err = tw_json_end(&json);
	if (!err)
		printf("%.*s\n", (int)out.len, out.data);
	tw_buf_deinit(&out);
	return err;
}

struct tw_error *tw_cmd_detach(int argc, char **argv)
{
	static const struct argp_option options[] = {
		TAPDISK_OPTIONS,
		{ "json", OPT_JSON, NULL, 0, "Print the answer as a JSON object", 0 },
		{ 0 },
	};
	static const struct argp argp = {
		.options = options,
		.parser = parse_detach,
		.args_doc = "IMAGE",
		.doc = "Take the mirror from the tapdisk that serves IMAGE.\v"
		       "For what a `tapwire attach` has left that was killed; one that runs puts its "
		       "mirror back: end it with SIGTERM instead. A disk that was left paused goes on.",
	};
	TW_AUTO_FREE char *tap_ctl = NULL;
	TW_AUTO_FREE char *image = NULL;
	char said[PATH_MAX + 256];
	struct detach detach = { .tapdisk = "auto" };
	argp_parse(&argp, argc, argv, 0, NULL, &detach);
	TW_TRY(find_tap_ctl(detach.tap_ctl, &tap_ctl));
	image = realpath(detach.image, NULL);
	const struct tw_mirror_switch change = {
		.tap_ctl = tap_ctl,
		.target = detach.tapdisk,
		.image = image ? image : detach.image,
	};
	if (tw_tapctl_switch(&change, said, sizeof(said)))
		return tw_error_create(TW_UNAVAILABLE, "%s", said);
	return print_detached(detach.json, said);
}
