/* SPDX-License-Identifier: BSD-3-Clause */
#include "cli/commands.h"
#include "cli/service_options.h"

#include <argp.h>

enum { OPT_RECORD = 0x300 };

static const struct argp_option options[] = {
	{ "socket", 's', "PATH", 0, "Serve NBD on this Unix socket (default: DIR/nbd.sock)", 0 },
	{ "record", OPT_RECORD, "FILE", 0, "Also record the writes, a trace for tapwire infer", 0 },
	{ 0 },
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
	struct tw_service_options *opts = state->input;
	switch (key) {
	case ARGP_KEY_INIT:
		state->child_inputs[0] = opts;
		return 0;
	case 's':
		opts->serve.socket = arg;
		return 0;
	case OPT_RECORD:
		opts->serve.record = arg;
		return 0;
	}
	return ARGP_ERR_UNKNOWN;
}

struct tw_error *tw_cmd_serve(int argc, char **argv)
{
	static const struct argp_child children[] = { { .argp = &tw_service_argp }, { 0 } };
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
	struct tw_service_options opts;
	tw_service_options_init(&opts);
	argp_parse(&argp, argc, argv, 0, NULL, &opts);
	return tw_service_run(&opts);
}
