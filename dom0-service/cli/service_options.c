/* SPDX-License-Identifier: BSD-3-Clause */
#include "cli/service_options.h"
#include "base/buf.h"
#include "event/json.h"

#include <stdio.h>
#include <stdlib.h>

enum { OPT_JSON = 0x100, OPT_POST, OPT_SECRET, OPT_STATE, OPT_RING_SIZE, OPT_LINGER };

static const struct argp_option options[] = {
	{ "config", 'c', "FILE", 0, "Post to the targets of this INI file, see tapwire.conf(5)",
		0 },
	{ "post", OPT_POST, "URL", 0, "Post every event to this URL at once", 0 },
	{ "secret-file", OPT_SECRET, "FILE", 0, "Sign what --post sends with this secret", 0 },
	{ "state", OPT_STATE, "DIR", 0, "Spool, state and sockets are in DIR", 0 },
	{ "ring-size", OPT_RING_SIZE, "SIZE", 0, "Room for writes that wait (default: 64M)", 0 },
	{ "linger", OPT_LINGER, "SECONDS", 0,
		"At the end, wait so long for deliveries (default: 5)", 0 },
	{ "json", OPT_JSON, NULL, 0, "Print the ready line as a JSON object", 0 },
	{ 0 },
};

static unsigned parse_seconds(const char *text, const struct argp_state *state)
{
	char *end;
	unsigned long seconds = strtoul(text, &end, 10);
	if (end == text || *end || seconds > 3600)
		argp_error(state, "--linger: not a number of seconds up to 3600: %s", text);
	return (unsigned)seconds;
}

static void check(const struct tw_service_options *opts, const struct argp_state *state)
{
	if (!opts->serve.image)
		argp_error(state, "IMAGE is missing");
	if (opts->serve.config && opts->serve.post)
		argp_error(state, "--config and --post exclude each other");
	if (opts->serve.secret_file && !opts->serve.post)
		argp_error(state, "--secret-file needs --post");
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
	struct tw_service_options *opts = state->input;
	switch (key) {
	case ARGP_KEY_INIT:
		state->child_inputs[0] = &opts->disk;
		return 0;
	case 'c':
		opts->serve.config = arg;
		return 0;
	case OPT_POST:
		opts->serve.post = arg;
		return 0;
	case OPT_SECRET:
		opts->serve.secret_file = arg;
		return 0;
	case OPT_STATE:
		opts->serve.state_dir = arg;
		return 0;
	case OPT_RING_SIZE:
		opts->serve.ring_size = arg;
		return 0;
	case OPT_LINGER:
		opts->serve.linger_s = parse_seconds(arg, state);
		return 0;
	case OPT_JSON:
		opts->json = true;
		return 0;
	case ARGP_KEY_ARG:
		if (opts->serve.image)
			argp_error(state, "one IMAGE at a time");
		opts->serve.image = arg;
		return 0;
	case ARGP_KEY_END:
		check(opts, state);
		return 0;
	}
	return ARGP_ERR_UNKNOWN;
}

static const struct argp_child children[] = { { .argp = &tw_disk_argp }, { 0 } };
const struct argp tw_service_argp = { .options = options, .parser = parse, .children = children };

/* --- the ready line --- */

static void print_json(const char *socket)
{
	struct tw_buf out = TW_BUF_INIT;
	struct tw_json json;
	tw_json_begin(&json, &out);
	tw_json_open(&json, NULL);
	tw_json_bool(&json, "ready", true);
	if (socket)
		tw_json_text(&json, "socket", socket);
	tw_json_close(&json);
	struct tw_error *err = tw_json_end(&json);
	if (!err)
		printf("%.*s\n", (int)out.len, out.data);
	tw_error_destroy(err);
	tw_buf_deinit(&out);
}

static void print_ready(void *arg, const char *socket)
{
	const struct tw_service_options *opts = arg;
	if (opts->json)
		print_json(socket);
	else if (socket)
		printf("ready: nbd+unix:///?socket=%s\n", socket);
	else
		printf("ready: tapdisk %s\n", opts->serve.tapdisk);
	fflush(stdout);
}

void tw_service_options_init(struct tw_service_options *opts)
{
	*opts = (struct tw_service_options){ .serve = { .linger_s = 5 } };
	tw_disk_options_init(&opts->disk);
}

struct tw_error *tw_service_run(struct tw_service_options *opts)
{
	int status = 0;
	opts->serve.id = opts->disk.id;
	opts->serve.ready = print_ready;
	opts->serve.arg = opts;
	TW_TRY(tw_serve(&opts->serve, &status));
	if (status)
		exit(status); /* the part that did not start has said why */
	return NULL;
}
