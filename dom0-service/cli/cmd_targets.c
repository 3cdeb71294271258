/* SPDX-License-Identifier: BSD-3-Clause */
#include "base/scope.h"
#include "cli/ask.h"
#include "cli/commands.h"
#include "cli/running_options.h"
#include "event/json.h"

#include <argp.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

struct args {
	struct tw_running_options running;
	const char *action;
	const char *name;
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
	struct args *args = state->input;
	switch (key) {
	case ARGP_KEY_INIT:
		state->child_inputs[0] = &args->running;
		return 0;
	case ARGP_KEY_ARG:
		if (!args->action)
			args->action = arg;
		else if (!args->name)
			args->name = arg;
		else
			argp_error(state, "too many arguments: %s", arg);
		return 0;
	case ARGP_KEY_END:
		if (args->action && strcmp(args->action, "suspend") != 0 && strcmp(args->action, "resume") != 0)
			argp_error(state, "expected suspend or resume, not %s", args->action);
		if (args->action && !args->name)
			argp_error(state, "%s needs a target's name", args->action);
		return 0;
	}
	return ARGP_ERR_UNKNOWN;
}

static struct tw_error *write_question(const struct args *args, struct tw_buf *out)
{
	struct tw_json json;
	tw_json_begin(&json, out);
	tw_json_open(&json, NULL);
	tw_json_text(&json, "command", args->action ? args->action : "targets");
	if (args->name)
		tw_json_text(&json, "target", args->name);
	tw_json_close(&json);
	TW_TRY(tw_json_end(&json));
	tw_buf_append(out, "", 1);
	return out->failed ? tw_error_nomem() : NULL;
}

static struct tw_error *show(const struct args *args, const struct tw_answer *answer)
{
	static const char *const heads[] = { "TARGET", "STATE", "BACKLOG", "DELIVERED", "RETRIES", "REFUSED",
		"DROPPED", "UNDER WAY", "LAST STATUS", "LAST ERROR", "URL", NULL };
	static const char *const members[] = { "name", "state", "backlog", "delivered", "retries", "refused",
		"dropped", "concurrency", "last_status", "last_error", "url", NULL };
	static const char *path[] = { "targets", NULL };
	if (args->running.json) {
		puts(answer->text.data);
		return NULL;
	}
	if (args->action)
		return NULL;
	return tw_answer_table(yajl_tree_get(answer->tree, path, yajl_t_array), heads, members);
}

struct tw_error *tw_cmd_targets(int argc, char **argv)
{
	static const struct argp_child children[] = { { .argp = &tw_running_argp }, { 0 } };
	static const struct argp argp = {
		.parser = parse,
		.children = children,
		.args_doc = "\nsuspend NAME\nresume NAME",
		.doc = "Show the targets of a running service, or suspend one and resume it.\v"
		       "A suspended target gets nothing; its events are kept, as far as its limits allow. A target "
		       "that answers 410 is suspended by itself.",
	};
	struct args args = { 0 };
	argp_parse(&argp, argc, argv, 0, NULL, &args);
	struct tw_buf question = TW_BUF_INIT;
	struct tw_answer answer = { .text = TW_BUF_INIT };
	struct tw_error *err = write_question(&args, &question);
	if (!err)
		err = tw_ask(args.running.state, question.data, &answer);
	if (!err)
		err = show(&args, &answer);
	tw_answer_deinit(&answer);
	tw_buf_deinit(&question);
	return err;
}
