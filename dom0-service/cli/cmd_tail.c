/* SPDX-License-Identifier: BSD-3-Clause */
#include "cli/commands.h"
#include "base/scope.h"
#include "supervise/paths.h"
#include "supervise/query.h"

#include <argp.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <yajl/yajl_tree.h>

enum { OPT_JSON = 0x100, OPT_STATE };

struct args {
	const char *state;
	unsigned long count; /* 0: no end */
	bool json;
};

static const struct argp_option options[] = {
	{ "json", OPT_JSON, NULL, 0, "Print each event as a target gets it, one a line", 0 },
	{ "state", OPT_STATE, "DIR", 0, "The service's directory (default: where one is running)",
		0 },
	{ "count", 'n', "N", 0, "End after N events", 0 },
	{ 0 },
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
	struct args *args = state->input;
	char *end;
	switch (key) {
	case OPT_JSON:
		args->json = true;
		return 0;
	case OPT_STATE:
		args->state = arg;
		return 0;
	case 'n':
		args->count = strtoul(arg, &end, 10);
		if (*end || !args->count)
			argp_error(state, "--count: not a number above 0: %s", arg);
		return 0;
	case ARGP_KEY_ARG:
		argp_error(state, "too many arguments: %s", arg);
		return 0;
	}
	return ARGP_ERR_UNKNOWN;
}

static const char *text_at(yajl_val event, const char *a, const char *b)
{
	const char *path[] = { a, b, NULL };
	const char *text = YAJL_GET_STRING(yajl_tree_get(event, path, yajl_t_string));
	return text ? text : "";
}

/* A guest chose these names: no control character of theirs reaches the terminal. */
static void put_safe(const char *text)
{
	for (; *text; text++)
		putchar((unsigned char)*text < ' ' || *text == 0x7f ? '?' : *text);
}

static void print_text(yajl_val event)
{
	const char *type = text_at(event, "type", NULL);
	const char *old_path = text_at(event, "data", "old_path");
	const char *name_path[] = { "data", "domain", "name", NULL };
	const char *name = YAJL_GET_STRING(yajl_tree_get(event, name_path, yajl_t_string));
	size_t skip = strncmp(type, "org.tapwire.", 12) == 0 ? 12 : 0;
	put_safe(text_at(event, "observedtime", NULL));
	putchar(' ');
	put_safe(name ? name : "-");
	printf(" %-16.32s ", type + skip);
	if (*old_path) {
		put_safe(old_path);
		fputs(" -> ", stdout);
	}
	put_safe(text_at(event, "subject", NULL));
	putchar('\n');
}

static struct tw_error *print(const struct tw_frame *frame, bool json)
{
	TW_AUTO_FREE char *body = strndup(frame->body, frame->length);
	if (!body)
		return tw_error_nomem();
	if (json) {
		puts(body);
		return NULL;
	}
	char why[128] = "";
	yajl_val event = yajl_tree_parse(body, why, sizeof(why));
	if (!event)
		return tw_error_create(TW_BAD_DATA, "the courier sent an event that is no JSON");
	print_text(event);
	yajl_tree_free(event);
	return NULL;
}

static struct tw_error *follow(int fd, const struct args *args, struct tw_buf *in)
{
	unsigned long left = args->count;
	TW_TRY(tw_query_send_frame(fd, TW_FRAME_TAIL));
	for (;;) {
		struct tw_frame frame;
		size_t size;
		TW_TRY(tw_query_read_frame(fd, in, &frame, &size));
		if (!size)
			return tw_error_create(
				TW_UNAVAILABLE, "the courier has closed the connection");
		if (frame.kind == TW_FRAME_EVENT) {
			TW_TRY(print(&frame, args->json));
			if (fflush(stdout) != 0)
				return tw_error_errno(errno, "standard output");
			if (args->count && --left == 0)
				return NULL;
		}
		tw_buf_consume(in, size);
	}
}

struct tw_error *tw_cmd_tail(int argc, char **argv)
{
	static const struct argp argp = {
		.options = options,
		.parser = parse,
		.doc = "Print the events of a running service as they happen.\v"
		       "A tail sees events when they are stored, whatever the targets' filters. One that "
		       "does not keep up is disconnected.",
	};
	struct args args = { 0 };
	argp_parse(&argp, argc, argv, 0, NULL, &args);
	TW_AUTO_FREE char *dir = NULL;
	TW_TRY(tw_query_find_service(args.state, &dir));
	TW_AUTO_FREE char *path = tw_path_join(dir, TW_COURIER_SOCKET);
	if (!path)
		return tw_error_nomem();
	TW_AUTO_CLOSE int fd = -1;
	TW_TRY(tw_query_connect(path, 0, &fd));
	struct tw_buf in = TW_BUF_INIT;
	struct tw_error *err = follow(fd, &args, &in);
	tw_buf_deinit(&in);
	return err;
}
