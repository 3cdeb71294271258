/* SPDX-License-Identifier: BSD-3-Clause */
/* attach and detach: an unmodified tapdisk's disk is watched while its guest runs. */
#include "cli/commands.h"
#include "base/buf.h"
#include "base/scope.h"
#include "cli/detach_service.h"
#include "cli/guest_disk.h"
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

enum { OPT_TAPDISK = 0x300, OPT_TAP_CTL, OPT_STALL, OPT_TRIES, OPT_JSON, OPT_STATE };

#define TAPDISK_OPTIONS                                                                            \
	{ "tapdisk", OPT_TAPDISK, "PID:MINOR", 0,                                                  \
		"The tapdisk (default: auto, the one that serves the disk)", 0 },                  \
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

struct attach {
	struct tw_service_options options; /* with vdev, the image is the guest */
	const char *vdev;
};

static error_t parse_attach(int key, char *arg, struct argp_state *state)
{
	struct attach *attach = state->input;
	struct tw_service_options *opts = &attach->options;
	switch (key) {
	case ARGP_KEY_INIT:
		state->child_inputs[0] = opts;
		return 0;
	case ARGP_KEY_ARG:
		if (!opts->serve.image)
			break;
		if (attach->vdev)
			argp_error(state, "one disk at a time");
		attach->vdev = arg;
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

static struct tw_error *attach_to_guest(struct attach *attach)
{
	struct tw_guest_tapdisk disk = { 0 };
	struct tw_service_options *opts = &attach->options;
	struct tw_error *err = tw_guest_tapdisk_find(
		opts->serve.tap_ctl, opts->serve.image, attach->vdev, opts->serve.tapdisk, &disk);
	if (!err) {
		tw_disk_options_fill(&opts->disk, &disk.id);
		opts->serve.image = disk.image;
		opts->serve.tapdisk = disk.target;
		err = tw_service_run(opts);
	}
	tw_guest_tapdisk_deinit(&disk);
	return err;
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
		.args_doc = "IMAGE\nGUEST VDEV",
		.doc = "Watch a disk that an unmodified tapdisk serves, while its guest runs, and post "
		       "what changes in its files.\v"
		       "A mirror is put under the tapdisk, for which the guest's requests are held for a "
		       "moment. One line on standard output tells that the disk is watched. SIGINT and "
		       "SIGTERM take the mirror away again. GUEST is a domain's name, UUID or number.",
		.children = children,
	};
	TW_AUTO_FREE char *tap_ctl = NULL;
	struct attach attach = { 0 };
	struct tw_serve *serve = &attach.options.serve;
	tw_service_options_init(&attach.options);
	serve->tapdisk = "auto";
	serve->stall_ms = DEFAULT_STALL_MS;
	serve->tries = DEFAULT_TRIES;
	argp_parse(&argp, argc, argv, 0, NULL, &attach);
	TW_TRY(find_tap_ctl(serve->tap_ctl, &tap_ctl));
	serve->tap_ctl = tap_ctl;
	return attach.vdev ? attach_to_guest(&attach) : tw_service_run(&attach.options);
}

/* --- detach --- */

struct detach {
	const char *image; /* with vdev, the guest */
	const char *vdev;
	const char *tapdisk;
	const char *tap_ctl;
	const char *state;
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
	case OPT_STATE:
		detach->state = arg;
		return 0;
	case OPT_JSON:
		detach->json = true;
		return 0;
	case ARGP_KEY_ARG:
		if (detach->vdev)
			argp_error(state, "one disk at a time");
		*(detach->image ? &detach->vdev : &detach->image) = arg;
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
	if (!as_json && !tapdisk) {
		puts("detached; tapwired puts no mirror there until the disk is plugged anew, or systemctl reload "
		     "tapwired");
		return NULL;
	}
	if (!as_json) {
		printf("tapdisk %s has no mirror\n", tapdisk);
		return NULL;
	}
	tw_json_begin(&json, &out);
	tw_json_open(&json, NULL);
	tw_json_bool(&json, "detached", true);
	if (tapdisk)
		tw_json_text(&json, "tapdisk", tapdisk);
	tw_json_close(&json);
	struct tw_error *err = tw_json_end(&json);
	if (!err)
		printf("%.*s\n", (int)out.len, out.data);
	tw_buf_deinit(&out);
	return err;
}

static struct tw_error *take_away(
	const struct detach *detach, const char *tap_ctl, const char *target, const char *image)
{
	char said[PATH_MAX + 256];
	const struct tw_mirror_switch change = { .tap_ctl = tap_ctl, .target = target, .image = image };
	if (tw_tapctl_switch(&change, said, sizeof(said)))
		return tw_error_create(TW_UNAVAILABLE, "%s", said);
	return print_detached(detach->json, said);
}

static struct tw_error *detach_from_guest(const struct detach *detach, const char *tap_ctl)
{
	struct tw_guest_tapdisk disk = { 0 };
	struct tw_error *err =
		tw_guest_tapdisk_find(tap_ctl, detach->image, detach->vdev, detach->tapdisk, &disk);
	if (!err)
		err = take_away(detach, tap_ctl, disk.target, disk.image);
	tw_guest_tapdisk_deinit(&disk);
	return err;
}

struct tw_error *tw_cmd_detach(int argc, char **argv)
{
	static const struct argp_option options[] = {
		TAPDISK_OPTIONS,
		{ "state", OPT_STATE, "DIR", 0,
			"The directory of a service that may have put the mirror there (default: where one is "
			"running)", 0 },
		{ "json", OPT_JSON, NULL, 0, "Print the answer as a JSON object", 0 },
		{ 0 },
	};
	static const struct argp argp = {
		.options = options,
		.parser = parse_detach,
		.args_doc = "IMAGE\nGUEST VDEV",
		.doc = "Take the mirror from the tapdisk that serves a disk.\v"
		       "For what a `tapwire attach` has left that was killed; one that runs puts its "
		       "mirror back: end it with SIGTERM instead. tapwired puts back what it has put there when the "
		       "disk is plugged anew or with a reload, and not before. A disk that was left paused goes on.",
	};
	TW_AUTO_FREE char *tap_ctl = NULL;
	TW_AUTO_FREE char *image = NULL;
	struct detach detach = { .tapdisk = "auto" };
	bool done;
	argp_parse(&argp, argc, argv, 0, NULL, &detach);
	TW_TRY(find_tap_ctl(detach.tap_ctl, &tap_ctl));
	TW_TRY(tw_detach_by_service(detach.state, detach.image, detach.vdev ? detach.vdev : "", &done));
	if (done)
		return print_detached(detach.json, NULL);
	if (detach.vdev)
		return detach_from_guest(&detach, tap_ctl);
	image = realpath(detach.image, NULL);
	return take_away(&detach, tap_ctl, detach.tapdisk, image ? image : detach.image);
}
