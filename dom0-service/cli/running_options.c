/* SPDX-License-Identifier: BSD-3-Clause */
#include "cli/running_options.h"

enum { OPT_JSON = 0x300, OPT_STATE };

static const struct argp_option options[] = {
	{ "json", OPT_JSON, NULL, 0, "Print one JSON object", 0 },
	{ "state", OPT_STATE, "DIR", 0, "The service's directory (default: where one is running)", 0 },
	{ 0 },
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
	struct tw_running_options *running = state->input;
	switch (key) {
	case OPT_JSON:
		running->json = true;
		return 0;
	case OPT_STATE:
		running->state = arg;
		return 0;
	}
	return ARGP_ERR_UNKNOWN;
}

const struct argp tw_running_argp = { .options = options, .parser = parse };

error_t tw_running_parse_none(int key, char *arg, struct argp_state *state)
{
	switch (key) {
	case ARGP_KEY_INIT:
		state->child_inputs[0] = state->input;
		return 0;
	case ARGP_KEY_ARG:
		argp_error(state, "too many arguments: %s", arg);
		return 0;
	}
	return ARGP_ERR_UNKNOWN;
}
