/* SPDX-License-Identifier: BSD-3-Clause */
#include "cli/disk_options.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { OPT_HOST = 0x200, OPT_DOMAIN_UUID, OPT_DOMAIN_NAME, OPT_DOMID, OPT_VDEV };

static const struct argp_option options[] = {
	{ NULL, 0, NULL, 0, "Who the disk is, in every event:", 10 },
	{ "host", OPT_HOST, "NAME", 0, "Host name (default: this host's)", 10 },
	{ "domain-uuid", OPT_DOMAIN_UUID, "UUID", 0, "The domain's UUID (default: nil)", 10 },
	{ "domain-name", OPT_DOMAIN_NAME, "NAME", 0, "The domain's name (default: \"-\")", 10 },
	{ "domid", OPT_DOMID, "N", 0, "The domain's number (default: 0)", 10 },
	{ "vdev", OPT_VDEV, "NAME", 0, "The virtual device's name (default: disk)", 10 },
	{ 0 },
};

static const char nil_uuid[] = "00000000-0000-0000-0000-000000000000";
static const char no_name[] = "-";
static const char no_vdev[] = "disk";

void tw_disk_options_init(struct tw_disk_options *opts)
{
	*opts = (struct tw_disk_options){
		.id = {
			.domain_uuid = nil_uuid,
			.domain_name = no_name,
			.vdev = no_vdev,
			.epoch = "",
		},
	};
	if (gethostname(opts->host, sizeof(opts->host) - 1) < 0 || !opts->host[0])
		strcpy(opts->host, "localhost");
	opts->id.host = opts->host;
}

void tw_disk_options_fill(struct tw_disk_options *opts, const struct tw_disk_id *id)
{
	if (opts->id.domain_uuid == nil_uuid && id->domain_uuid)
		opts->id.domain_uuid = id->domain_uuid;
	if (opts->id.domain_name == no_name && id->domain_name)
		opts->id.domain_name = id->domain_name;
	if (opts->id.vdev == no_vdev)
		opts->id.vdev = id->vdev;
	if (!opts->id.domid)
		opts->id.domid = id->domid;
}

static uint32_t parse_domid(const char *text, const struct argp_state *state)
{
	char *end;
	errno = 0;
	unsigned long value = strtoul(text, &end, 10);
	if (errno || end == text || *end || *text == '-' || value > UINT16_MAX)
		argp_error(state, "--domid: not a domain number: %s", text);
	return (uint32_t)value;
}

static const char *not_empty(const char *name, const char *text, const struct argp_state *state)
{
	if (!*text)
		argp_error(state, "--%s: empty", name);
	return text;
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
	struct tw_disk_options *opts = state->input;
	switch (key) {
	case OPT_HOST:
		opts->id.host = not_empty("host", arg, state);
		return 0;
	case OPT_DOMAIN_UUID:
		opts->id.domain_uuid = not_empty("domain-uuid", arg, state);
		return 0;
	case OPT_DOMAIN_NAME:
		opts->id.domain_name = arg;
		return 0;
	case OPT_DOMID:
		opts->id.domid = parse_domid(arg, state);
		return 0;
	case OPT_VDEV:
		opts->id.vdev = not_empty("vdev", arg, state);
		return 0;
	}
	return ARGP_ERR_UNKNOWN;
}

const struct argp tw_disk_argp = { .options = options, .parser = parse };
