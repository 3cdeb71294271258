/* SPDX-License-Identifier: BSD-3-Clause */
#include "cli/commands.h"
#include "cli/disk_options.h"
#include "cli/serve.h"
#include "event/json.h"

#include <argp.h>
#include <stdio.h>
#include <stdlib.h>

enum { OPT_JSON = 0x100, OPT_POST, OPT_SECRET, OPT_STATE, OPT_RING_SIZE, OPT_RECORD, OPT_LINGER };

struct args {
	struct tw_disk_options disk;
	struct tw_serve serve;
	bool json;
};

static const struct argp_option options[] = {
	{ "socket", 's', "PATH", 0, "Serve NBD on this Unix socket (default: DIR/nbd.sock)", 0 },
	{ "config", 'c', "FILE", 0, "Post to the targets of this INI file, see tapwire.conf(5)",
		0 },
	{ "post", OPT_POST, "URL", 0, "Post every event to this URL at once", 0 },
	{ "secret-file", OPT_SECRET, "FILE", 0, "Sign what --post sends with this secret", 0 },
	{ "state", OPT_STATE, "DIR", 0, "Spool, state and sockets are in DIR", 0 },
	{ "ring-size", OPT_RING_SIZE, "SIZE", 0, "Room for writes that wait (default: 64M)", 0 },
	{ "record", OPT_RECORD, "FILE", 0, "Also record the writes, a trace for tapwire infer", 0 },
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

static void check(const struct args *args, const struct argp_state *state)
{
	if (!args->serve.image)
		argp_error(state, "IMAGE is missing");
	if (args->serve.config && args->serve.post)
		argp_error(state, "--config and --post exclude each other");
	if (args->serve.secret_file && !args->serve.post)
		argp_error(state, "--secret-file needs --post");
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
	struct args *args = state->input;
	switch (key) {
	case ARGP_KEY_INIT:
		state->child_inputs[0] = &args->disk;
		return 0;
	case 's':
		args->serve.socket = arg;
		return 0;
	case 'c':
		args->serve.config = arg;
		return 0;
	case OPT_POST:
		args->serve.post = arg;
		return 0;
	case OPT_SECRET:
		args->serve.secret_file = arg;
		return 0;
	case OPT_STATE:
		args->serve.state_dir = arg;
		return 0;
	case OPT_RING_SIZE:
		args->serve.ring_size = arg;
		return 0;
	case OPT_RECORD:
		args->serve.record = arg;
		return 0;
	case OPT_LINGER:
		args->serve.linger_s = parse_seconds(arg, state);
		return 0;
	case OPT_JSON:
		args->json = true;
		return 0;
	case ARGP_KEY_ARG:
		if (args->serve.image)
			argp_error(state, "one IMAGE at a time");
		args->serve.image = arg;
		return 0;
	case ARGP_KEY_END:
		check(args, state);
		return 0;
	}
	return ARGP_ERR_UNKNOWN;
}

static void print_json(const char *socket)
{
	struct tw_buf out = TW_BUF_INIT;
	struct tw_json json;
	tw_json_begin(&json, &out);
	tw_json_open(&json, NULL);
	tw_json_bool(&json, "ready", true);
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
	const struct args *args = arg;
	if (args->json)
		print_json(socket);
	else
		printf("ready: nbd+unix:///?socket=%s\n", socket);
	fflush(stdout);
}

struct tw_error *tw_cmd_serve(int argc, char **argv)
{
	static const struct argp_child children[] = { { .argp = &tw_disk_argp }, { 0 } };
	static const struct argp argp = {
		.options = options,
		.parser = parse,
		.args_doc = "IMAGE",
		.doc = "Serve a raw disk image over NBD on a Unix socket, and post what changes in its "
		       "files.\v"
		       "One line on standard output tells when clients may connect. SIGINT and SIGTERM "
		       "end it in order. One service at a time uses a state directory; the default is "
		       "/var/lib/tapwire/serve for root and ~/.local/state/tapwire for others.",
		.children = children,
	};
	struct args args = { .serve = { .linger_s = 5, .ready = print_ready } };
	int status = 0;
	tw_disk_options_init(&args.disk);
	argp_parse(&argp, argc, argv, 0, NULL, &args);
	args.serve.id = args.disk.id;
	args.serve.arg = &args;
	TW_TRY(tw_serve(&args.serve, &status));
	if (status)
		exit(status); /* the part that did not start has said why */
	return NULL;
}
