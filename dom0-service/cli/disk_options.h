/* SPDX-License-Identifier: BSD-3-Clause */
/* The options that say who a disk is when no Xen tells: --host --domain-uuid --domain-name --domid
 * --vdev. */
#ifndef TW_CLI_DISK_OPTIONS_H
#define TW_CLI_DISK_OPTIONS_H

#include "event/event.h"
#include <argp.h>
#include <limits.h>

/* For struct argp.children; its input (struct argp_state.child_inputs) is a tw_disk_options. */
extern const struct argp tw_disk_argp;

struct tw_disk_options {
	struct tw_disk_id id; /* points into argv, into host and at constants */
	char host[HOST_NAME_MAX + 1];
};

/* This host, the nil domain uuid, domain "-" with id 0, vdev "disk", and an empty epoch. */
void tw_disk_options_init(struct tw_disk_options *options);
/* What xenstore says of the domain and the device, where no option has said something else. Strings must outlive
 * the options. */
void tw_disk_options_fill(struct tw_disk_options *options, const struct tw_disk_id *id);

#endif
