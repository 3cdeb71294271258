/* SPDX-License-Identifier: BSD-3-Clause */
#include "base/scope.h"
#include "cli/ask.h"
#include "cli/commands.h"
#include "cli/running_options.h"
#include "event/json.h"

#include <argp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { OPT_TARGET = 0x100, OPT_ALL, OPT_AFTER, OPT_LIMIT };
enum action { LIST, SHOW, REDELIVER, DROP, NONE };

static const char *const words[] = { "list", "show", "redeliver", "drop" };
static const char *const commands[] = { "dead-letters", "dead-letter", "dead-letters-redeliver",
	"dead-letters-drop" };

struct args {
	struct tw_running_options running;
	const char *target;
	enum action action;
	uint64_t id;
	uint64_t after;
	uint64_t limit;
	bool all;
};

static const struct argp_option options[] = {
	{ "target", OPT_TARGET, "NAME", 0, "Only what this target has refused", 0 },
	{ "all", OPT_ALL, NULL, 0, "All of them, for redeliver and drop", 0 },
	{ "after", OPT_AFTER, "ID", 0, "List what follows the letter ID", 0 },
	{ "limit", OPT_LIMIT, "N", 0, "List at most N (default and most: 1000)", 0 },
	{ 0 },
};

static uint64_t number(const char *text, const char *what, const struct argp_state *state)
{
	char *end;
	unsigned long long value = strtoull(text, &end, 10);
	if (end == text || *end || *text == '-' || value > INT64_MAX)
		argp_error(state, "%s: not a number: %s", what, text);
	return value;
}

static void take_word(struct args *args, const char *arg, const struct argp_state *state)
{
	if (args->action != NONE) {
		if (args->id || args->action == LIST)
			argp_error(state, "too many arguments: %s", arg);
		args->id = number(arg, "ID", state);
		return;
	}
	for (int i = LIST; i < NONE; i++)
		if (strcmp(arg, words[i]) == 0)
			args->action = (enum action)i;
	if (args->action == NONE)
		argp_error(state, "expected list, show, redeliver or drop, not %s", arg);
}

static void check(const struct args *args, const struct argp_state *state)
{
	if (args->action == NONE)
		argp_error(state, "expected list, show, redeliver or drop");
	if (args->action == SHOW && !args->id)
		argp_error(state, "show needs an ID");
	if ((args->action == REDELIVER || args->action == DROP) && !args->id == !args->all)
		argp_error(state, "%s needs an ID or --all", words[args->action]);
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
	struct args *args = state->input;
	switch (key) {
	case OPT_TARGET:
		args->target = arg;
		return 0;
	case OPT_ALL:
		args->all = true;
		return 0;
	case OPT_AFTER:
		args->after = number(arg, "--after", state);
		return 0;
	case OPT_LIMIT:
		args->limit = number(arg, "--limit", state);
		return 0;
	case ARGP_KEY_INIT:
		state->child_inputs[0] = &args->running;
		return 0;
	case ARGP_KEY_ARG:
		take_word(args, arg, state);
		return 0;
	case ARGP_KEY_END:
		check(args, state);
		return 0;
	}
	return ARGP_ERR_UNKNOWN;
}

static struct tw_error *write_question(const struct args *args, struct tw_buf *out)
{
	struct tw_json json;
	tw_json_begin(&json, out);
	tw_json_open(&json, NULL);
	tw_json_text(&json, "command", commands[args->action]);
	if (args->target)
		tw_json_text(&json, "target", args->target);
	if (args->id)
		tw_json_u64(&json, "id", args->id);
	if (args->all)
		tw_json_bool(&json, "all", true);
	if (args->after)
		tw_json_u64(&json, "after", args->after);
	if (args->limit)
		tw_json_u64(&json, "limit", args->limit);
	tw_json_close(&json);
	TW_TRY(tw_json_end(&json));
	tw_buf_append(out, "", 1);
	return out->failed ? tw_error_nomem() : NULL;
}

/* A guest chose these names: no control character of theirs reaches the terminal. */
static void print_line(const char *name, const char *text)
{
	printf("%-8s ", name);
	for (; *text; text++)
		putchar((unsigned char)*text < ' ' || *text == 0x7f ? '?' : *text);
	putchar('\n');
}

static struct tw_error *show(const struct args *args, const struct tw_answer *answer)
{
	static const char *const heads[] = { "ID", "TIME", "TARGET", "STATUS", "TYPE", "SUBJECT", "ANSWER", NULL };
	static const char *const members[] = { "id", "time", "target", "status", "type", "subject", "answer",
		NULL };
	static const char *letters[] = { "letters", NULL };
	static const char *letter[] = { "letter", NULL };
	if (args->running.json) {
		puts(answer->text.data);
		return NULL;
	}
	switch (args->action) {
	case LIST:
		return tw_answer_table(yajl_tree_get(answer->tree, letters, yajl_t_array), heads, members);
	case SHOW:
		for (size_t i = 0; members[i]; i++)
			print_line(members[i],
				tw_answer_text(yajl_tree_get(answer->tree, letter, yajl_t_object), members[i]));
		return NULL;
	default:
		printf("%s\n", tw_answer_text(answer->tree, "count"));
		return NULL;
	}
}

struct tw_error *tw_cmd_dead_letters(int argc, char **argv)
{
	static const struct argp_child children[] = { { .argp = &tw_running_argp }, { 0 } };
	static const struct argp argp = {
		.options = options,
		.parser = parse,
		.children = children,
		.args_doc = "list\nshow ID\nredeliver ID|--all\ndrop ID|--all",
		.doc = "List, show, send again or drop the events that targets of a running service have refused.\v"
		       "show --json prints the event itself, too. What is sent again goes to its target behind all "
		       "that waits. redeliver and drop print how many there were.",
	};
	struct args args = { .action = NONE };
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
