/* SPDX-License-Identifier: BSD-3-Clause */
#include "cli/commands.h"
#include "cli/disk_options.h"
#include "inspect/run.h"

#include <unistd.h>

enum { OPT_JSON = 0x100 };

struct args {
	struct tw_disk_options disk;
	const char *image;
};

static const struct argp_option options[] = {
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
	case OPT_JSON:
		return 0;
	case ARGP_KEY_ARG:
		if (args->image)
			argp_error(state, "one IMAGE at a time");
		args->image = arg;
		return 0;
	case ARGP_KEY_NO_ARGS:
		argp_error(state, "IMAGE is missing");
		return 0;
	}
	return ARGP_ERR_UNKNOWN;
}

struct tw_error *tw_cmd_crawl(int argc, char **argv)
{
	static const struct argp_child children[] = { { .argp = &tw_disk_argp }, { 0 } };
	static const struct argp argp = {
		.options = options,
		.parser = parse,
		.args_doc = "IMAGE",
		.doc = "List every name in the file systems of a disk image, one JSON object a line.\v"
		       "The image is only read. A line has the name's path and the fields of an "
		       "event's data.",
		.children = children,
	};
	struct args args = { 0 };
	tw_disk_options_init(&args.disk);
	argp_parse(&argp, argc, argv, 0, NULL, &args);
	return tw_run_crawl(args.image, &args.disk.id, STDOUT_FILENO);
}
