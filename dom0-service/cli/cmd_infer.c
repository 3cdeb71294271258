/* SPDX-License-Identifier: BSD-3-Clause */
#include "cli/commands.h"
#include "base/scope.h"
#include "cli/disk_options.h"
#include "config/config.h"
#include "config/value.h"
#include "inspect/run.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { OPT_JSON = 0x100, OPT_STATS, OPT_EPOCH, OPT_CONTENT, OPT_CONTENT_MAX };

struct args {
	struct tw_disk_options disk;
	struct tw_infer job;
	const char *mode;
	uint64_t max;
};

static const struct argp_option options[] = {
	{ "disk", 'd', "IMAGE", 0, "The disk as it was before the trace's first write", 0 },
	{ "trace", 't', "FILE", 0, "The recorded writes; - is standard input", 0 },
	{ "content", OPT_CONTENT, "MODE", 0,
		"What files hold, in their events: none (the default), append, changed or full", 0 },
	{ "content-max", OPT_CONTENT_MAX, "SIZE", 0, "No more than this of a file in an event (default: 1MiB)", 0 },
	{ "epoch", OPT_EPOCH, "TEXT", 0, "First part of every event's id (default: infer)", 0 },
	{ "stats", OPT_STATS, NULL, 0, "Say on standard error what was read and how fast", 0 },
	{ "count", 'n', NULL, 0, "Print what --stats says in place of the events", 0 },
	{ "json", OPT_JSON, NULL, 0, "JSON output; this command has no other", 0 },
	{ 0 },
};

/* As the rules have it (content/rules.h), "" for none; NULL: there is none of this name. */
static const char *find_mode(const char *name)
{
	static const char *const modes[][2] = {
		{ "none", "" }, { "append", "changed" }, { "changed", "changed" }, { "full", "full" } };
	for (size_t i = 0; i < sizeof(modes) / sizeof(modes[0]); i++)
		if (strcmp(name, modes[i][0]) == 0)
			return modes[i][1];
	return NULL;
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
	struct args *args = state->input;
	switch (key) {
	case ARGP_KEY_INIT:
		state->child_inputs[0] = &args->disk;
		return 0;
	case 'd':
		args->job.disk = arg;
		return 0;
	case 't':
		args->job.trace = arg;
		return 0;
	case OPT_EPOCH:
		if (!*arg)
			argp_error(state, "--epoch: empty");
		args->disk.id.epoch = arg;
		return 0;
	case OPT_CONTENT:
		args->mode = find_mode(arg);
		if (!args->mode)
			argp_error(state, "--content: '%s' is not none, append, changed or full", arg);
		return 0;
	case OPT_CONTENT_MAX:
		if (!tw_value_bytes(arg, &args->max) || args->max > TW_CONTENT_MAX_BYTES)
			argp_error(state, "--content-max: '%s' is no size from 1 to 4MiB", arg);
		return 0;
	case OPT_STATS:
		if (args->job.summary == TW_RUN_SUMMARY_NONE)
			args->job.summary = TW_RUN_SUMMARY_TOO;
		return 0;
	case 'n':
		args->job.summary = TW_RUN_SUMMARY_ONLY;
		return 0;
	case OPT_JSON:
		return 0;
	case ARGP_KEY_ARG:
		argp_error(state, "too many arguments: %s", arg);
		return 0;
	case ARGP_KEY_END:
		if (!args->job.disk)
			argp_error(state, "--disk is missing");
		if (!args->job.trace)
			argp_error(state, "--trace is missing");
		return 0;
	}
	return ARGP_ERR_UNKNOWN;
}

struct tw_error *tw_cmd_infer(int argc, char **argv)
{
	static const struct argp_child children[] = { { .argp = &tw_disk_argp }, { 0 } };
	static const struct argp argp = {
		.options = options,
		.parser = parse,
		.args_doc = "--disk IMAGE --trace FILE",
		.doc = "Print the file events of a recorded trace, one CloudEvent a line.\v"
		       "The output is what a target would get, in the same order. Neither file is "
		       "written to, and two runs give the same output.",
		.children = children,
	};
	struct args args = { .mode = "", .max = 1u << 20 };
	tw_disk_options_init(&args.disk);
	args.disk.id.epoch = "infer";
	argp_parse(&argp, argc, argv, 0, NULL, &args);
	args.job.id = args.disk.id;
	TW_AUTO_FREE char *rules = NULL;
	if (*args.mode && asprintf(&rules, "rule %s %" PRIu64 " %" PRIx64, args.mode, args.max, UINT64_MAX) < 0) {
		rules = NULL;
		return tw_error_nomem();
	}
	args.job.content = rules;
	return tw_run_infer(&args.job, STDOUT_FILENO);
}
