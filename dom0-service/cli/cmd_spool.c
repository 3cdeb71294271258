/* SPDX-License-Identifier: BSD-3-Clause */
#include "cli/ask.h"
#include "cli/commands.h"
#include "cli/running_options.h"

#include <argp.h>
#include <stdbool.h>
#include <stdio.h>

static void print(yajl_val spool)
{
	static const char *const members[] = { "path", "events", "bytes", "file_bytes", "max_bytes", "keep_ms",
		"dead_letters", "full", NULL };
	for (const char *const *member = members; *member; member++)
		printf("%-13s %s\n", *member, tw_answer_text(spool, *member));
}

struct tw_error *tw_cmd_spool(int argc, char **argv)
{
	static const struct argp_child children[] = { { .argp = &tw_running_argp }, { 0 } };
	static const struct argp argp = {
		.parser = tw_running_parse_none,
		.children = children,
		.doc = "Show what the spool of a running service holds.\v"
		       "events are those that some target still waits for; bytes are in use in the file, "
		       "file_bytes is its size.",
	};
	static const char *path[] = { "spool", NULL };
	struct tw_running_options running = { 0 };
	argp_parse(&argp, argc, argv, 0, NULL, &running);
	struct tw_answer answer = { .text = TW_BUF_INIT };
	struct tw_error *err = tw_ask(running.state, "{\"command\":\"spool\"}", &answer);
	if (!err && running.json)
		puts(answer.text.data);
	else if (!err)
		print(yajl_tree_get(answer.tree, path, yajl_t_object));
	tw_answer_deinit(&answer);
	return err;
}
