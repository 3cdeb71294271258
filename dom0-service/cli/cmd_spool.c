/* SPDX-License-Identifier: BSD-3-Clause */
#include "cli/ask.h"
#include "cli/commands.h"

#include <argp.h>
#include <stdbool.h>
#include <stdio.h>

enum { OPT_JSON = 0x100, OPT_STATE };

struct args {
	const char *state;
	bool json;
};

static const struct argp_option options[] = {
	{ "json", OPT_JSON, NULL, 0, "Print one JSON object", 0 },
	{ "state", OPT_STATE, "DIR", 0, "The service's directory (default: where one is running)", 0 },
	{ 0 },
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
	struct args *args = state->input;
	switch (key) {
	case OPT_JSON:
		args->json = true;
		return 0;
	case OPT_STATE:
		args->state = arg;
		return 0;
	case ARGP_KEY_ARG:
		argp_error(state, "too many arguments: %s", arg);
		return 0;
	}
	return ARGP_ERR_UNKNOWN;
}

static void print(yajl_val spool)
{
	static const char *const members[] = { "path", "events", "bytes", "file_bytes", "max_bytes", "keep_ms",
		"dead_letters", "full", NULL };
	for (const char *const *member = members; *member; member++)
		printf("%-13s %s\n", *member, tw_answer_text(spool, *member));
}

struct tw_error *tw_cmd_spool(int argc, char **argv)
{
	static const struct argp argp = {
		.options = options,
		.parser = parse,
		.doc = "Show what the spool of a running service holds.\v"
		       "events are those that some target still waits for; bytes are in use in the file, "
		       "file_bytes is its size.",
	};
	static const char *path[] = { "spool", NULL };
	struct args args = { 0 };
	argp_parse(&argp, argc, argv, 0, NULL, &args);
	struct tw_answer answer = { .text = TW_BUF_INIT };
	struct tw_error *err = tw_ask(args.state, "{\"command\":\"spool\"}", &answer);
	if (!err && args.json)
		puts(answer.text.data);
	else if (!err)
		print(yajl_tree_get(answer.tree, path, yajl_t_object));
	tw_answer_deinit(&answer);
	return err;
}
