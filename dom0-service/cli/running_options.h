/* SPDX-License-Identifier: BSD-3-Clause */
/* The options of the commands that ask a service which runs: --state --json. */
#ifndef TW_CLI_RUNNING_OPTIONS_H
#define TW_CLI_RUNNING_OPTIONS_H

#include <argp.h>
#include <stdbool.h>

struct tw_running_options {
	const char *state; /* its directory; NULL: where one is running */
	bool json;
};

/* For struct argp.children; its input (struct argp_state.child_inputs) is a tw_running_options. */
extern const struct argp tw_running_argp;

/* A parser for commands whose input begins with a tw_running_options, and which have no options and take no arguments
 * of their own. */
error_t tw_running_parse_none(int key, char *arg, struct argp_state *state);

#endif
