/* SPDX-License-Identifier: BSD-3-Clause */
/* What the commands that run a service of their own have in common: their options, --config to
 * --linger and --json, and those of disk_options.h. */
#ifndef TW_CLI_SERVICE_OPTIONS_H
#define TW_CLI_SERVICE_OPTIONS_H

#include "cli/disk_options.h"
#include "cli/serve.h"
#include <argp.h>
#include <stdbool.h>

struct tw_service_options {
	struct tw_disk_options disk;
	struct tw_serve serve; /* what the options say of it */
	bool json;
};

/* For struct argp.children; its input (struct argp_state.child_inputs) is a tw_service_options. Takes
 * the one argument, IMAGE, too. */
extern const struct argp tw_service_argp;

void tw_service_options_init(struct tw_service_options *options);

/* Runs the service; print says on standard output that it is ready. Does not return when a part did
 * not start: that part has said why. */
struct tw_error *tw_service_run(struct tw_service_options *options) TW_MUST_CHECK;

#endif
