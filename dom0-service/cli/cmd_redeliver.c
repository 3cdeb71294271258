/* SPDX-License-Identifier: BSD-3-Clause */
#include "cli/ask.h"
#include "cli/commands.h"
#include "cli/running_options.h"
#include "config/value.h"
#include "event/json.h"

#include <argp.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

enum { OPT_TARGET = 0x100, OPT_SINCE };

struct args {
	struct tw_running_options running;
	const char *target;
	uint64_t since_ms;
};

static const struct argp_option options[] = {
	{ "target", OPT_TARGET, "NAME", 0, "Send to this target", 0 },
	{ "since", OPT_SINCE, "TIME", 0,
		"What has come in since then: 2026-01-05T10:00:00Z, or so long ago: 90s, 30min, 2h, 1d", 0 },
	{ 0 },
};

static bool parse_time(const char *text, uint64_t *out)
{
	struct tm utc = { 0 };
	const char *end = strptime(text, "%Y-%m-%dT%H:%M:%SZ", &utc);
	if (end && !*end) {
		time_t seconds = timegm(&utc);
		*out = (uint64_t)seconds * 1000;
		return seconds > 0;
	}
	uint64_t ago;
	uint64_t now = (uint64_t)time(NULL) * 1000;
	if (!tw_value_age(text, &ago) || ago >= now)
		return false;
	*out = now - ago;
	return true;
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
	struct args *args = state->input;
	switch (key) {
	case OPT_TARGET:
		args->target = arg;
		return 0;
	case OPT_SINCE:
		if (!parse_time(arg, &args->since_ms))
			argp_error(state, "--since: neither a time nor so long ago: %s", arg);
		return 0;
	case ARGP_KEY_INIT:
		state->child_inputs[0] = &args->running;
		return 0;
	case ARGP_KEY_ARG:
		argp_error(state, "too many arguments: %s", arg);
		return 0;
	case ARGP_KEY_END:
		if (!args->target || !args->since_ms)
			argp_error(state, "--target and --since are needed");
		return 0;
	}
	return ARGP_ERR_UNKNOWN;
}

static struct tw_error *write_question(const struct args *args, struct tw_buf *out)
{
	struct tw_json json;
	tw_json_begin(&json, out);
	tw_json_open(&json, NULL);
	tw_json_text(&json, "command", "redeliver");
	tw_json_text(&json, "target", args->target);
	tw_json_u64(&json, "since_ms", args->since_ms);
	tw_json_close(&json);
	TW_TRY(tw_json_end(&json));
	tw_buf_append(out, "", 1);
	return out->failed ? tw_error_nomem() : NULL;
}

struct tw_error *tw_cmd_redeliver(int argc, char **argv)
{
	static const struct argp_child children[] = { { .argp = &tw_running_argp }, { 0 } };
	static const struct argp argp = {
		.options = options,
		.parser = parse,
		.children = children,
		.args_doc = "--target NAME --since TIME",
		.doc = "Send a target again what came in since a time.\v"
		       "Events have the ids that they had, and come in new batches. They are there for as long as keep "
		       "in section [spool] says.",
	};
	struct args args = { 0 };
	argp_parse(&argp, argc, argv, 0, NULL, &args);
	struct tw_buf question = TW_BUF_INIT;
	struct tw_answer answer = { .text = TW_BUF_INIT };
	struct tw_error *err = write_question(&args, &question);
	if (!err)
		err = tw_ask(args.running.state, question.data, &answer);
	if (!err && args.running.json)
		puts(answer.text.data);
	tw_answer_deinit(&answer);
	tw_buf_deinit(&question);
	return err;
}
