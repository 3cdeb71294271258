/* SPDX-License-Identifier: BSD-3-Clause */
#include "cli/commands.h"
#include "cli/disk_options.h"
#include "inspect/run.h"

#include <unistd.h>

enum { OPT_JSON = 0x100, OPT_STATS, OPT_EPOCH };

struct args {
	struct tw_disk_options disk;
	const char *image;
	const char *trace;
	enum tw_run_summary summary;
};

static const struct argp_option options[] = {
	{ "disk", 'd', "IMAGE", 0, "The disk as it was before the trace's first write", 0 },
	{ "trace", 't', "FILE", 0, "The recorded writes; - is standard input", 0 },
	{ "epoch", OPT_EPOCH, "TEXT", 0, "First part of every event's id (default: infer)", 0 },
	{ "stats", OPT_STATS, NULL, 0, "Say on standard error what was read and how fast", 0 },
	{ "count", 'n', NULL, 0, "Print what --stats says in place of the events", 0 },
	{ "json", OPT_JSON, NULL, 0, "JSON output; this command has no other", 0 },
	{ 0 },
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
	struct args *args = state->input;
	switch (key) {
	case ARGP_KEY_INIT:
		state->child_inputs[0] = &args->disk;
		return 0;
	case 'd':
		args->image = arg;
		return 0;
	case 't':
		args->trace = arg;
		return 0;
	case OPT_EPOCH:
		if (!*arg)
			argp_error(state, "--epoch: empty");
		args->disk.id.epoch = arg;
		return 0;
	case OPT_STATS:
		if (args->summary == TW_RUN_SUMMARY_NONE)
			args->summary = TW_RUN_SUMMARY_TOO;
		return 0;
	case 'n':
		args->summary = TW_RUN_SUMMARY_ONLY;
		return 0;
	case OPT_JSON:
		return 0;
	case ARGP_KEY_ARG:
		argp_error(state, "too many arguments: %s", arg);
		return 0;
	case ARGP_KEY_END:
		if (!args->image)
			argp_error(state, "--disk is missing");
		if (!args->trace)
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
	struct args args = { 0 };
	tw_disk_options_init(&args.disk);
	args.disk.id.epoch = "infer";
	argp_parse(&argp, argc, argv, 0, NULL, &args);
	return tw_run_infer(args.image, args.trace, &args.disk.id, STDOUT_FILENO, args.summary);
}
