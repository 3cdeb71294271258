/* SPDX-License-Identifier: BSD-3-Clause */
/* tapwired: the service of a host. Watches the disks that its INI file names. */
#include "base/log.h"
#include "base/scope.h"
#include "config/config.h"
#include "content/rules.h"
#include "supervise/child.h"
#include "supervise/paths.h"
#include "supervise/supervisor.h"
#include "supervise/tapctl.h"

#include <argp.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>
#include <unistd.h>

#define NIL_UUID "00000000-0000-0000-0000-000000000000"
#define UUID_TEXT 36

enum { OPT_LINGER = 0x100 };

struct args {
	const char *config;
	unsigned linger_s;
};

static const struct argp_option options[] = {
	{ "config", 'c', "FILE", 0, "The INI file, see tapwire.conf(5)", 0 },
	{ "linger", OPT_LINGER, "SECONDS", 0,
		"At the end, wait so long for deliveries (default: 5)", 0 },
	{ 0 },
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
	struct args *args = state->input;
	char *end;
	switch (key) {
	case 'c':
		args->config = arg;
		return 0;
	case OPT_LINGER: {
		unsigned long seconds = strtoul(arg, &end, 10);
		if (end == arg || *end || seconds > 3600)
			argp_error(state, "--linger: not a number of seconds up to 3600: %s", arg);
		args->linger_s = (unsigned)seconds;
		return 0;
	}
	case ARGP_KEY_ARG:
		argp_error(state, "too many arguments: %s", arg);
		return 0;
	case ARGP_KEY_END:
		if (!args->config)
			argp_error(state, "--config is missing");
		return 0;
	}
	return ARGP_ERR_UNKNOWN;
}

/* The file says a domain's name, UUID or number in one word. */
static void name_domain(const char *text, struct tw_disk_id *id)
{
	char *end;
	unsigned long number = strtoul(text, &end, 10);
	id->domain_uuid = NIL_UUID;
	id->domain_name = "-";
	if (*text && !*end && number <= UINT16_MAX)
		id->domid = (uint32_t)number;
	else if (strlen(text) == UUID_TEXT && strspn(text, "0123456789abcdefABCDEF-") == UUID_TEXT)
		id->domain_uuid = text;
	else
		id->domain_name = text;
}

static struct tw_error *fill_spec(const struct tw_config *config, const struct tw_config_disk *disk,
	const char *host, const char *courier, struct tw_disk_spec *spec)
{
	TW_AUTO_FREE char *dir = NULL;
	if (asprintf(&dir, "%s/disks/%s", config->state_dir, disk->name) < 0)
		return tw_error_nomem();
	*spec = (struct tw_disk_spec){
		.name = disk->name,
		.image = disk->image,
		.ring = disk->ring,
		.state_dir = TW_STEAL(dir),
		.courier_socket = courier,
		.id = { .host = host, .vdev = disk->vdev },
		.tapdisk = disk->tapdisk,
		.tap_ctl = config->tap_ctl,
		.stall_ms = (unsigned)config->mirror_stall_ms,
		.tries = (unsigned)config->mirror_tries,
	};
	name_domain(disk->domain ? disk->domain : disk->name, &spec->id);
	return tw_content_plan(config, spec->id.domain_name, spec->id.domain_uuid, (char **)&spec->content);
}

/* A configuration, and what the supervisor makes of it. */
struct setup {
	struct tw_config *config;
	struct tw_disk_spec *specs;
};

struct service {
	const struct args *args;
	char host[HOST_NAME_MAX + 1];
	char *courier;
	struct setup now, before;
};

static void setup_deinit(struct setup *setup)
{
	for (size_t i = 0; setup->specs && i < setup->config->ndisks; i++) {
		free((char *)setup->specs[i].state_dir);
		free((char *)setup->specs[i].content);
	}
	free(setup->specs);
	tw_config_destroy(setup->config);
	*setup = (struct setup){ 0 };
}

static struct tw_error *fill_setup(const struct service *service, struct setup *setup)
{
	const struct tw_config *config = setup->config;
	setup->specs = calloc(config->ndisks + 1, sizeof(*setup->specs));
	if (!setup->specs)
		return tw_error_nomem();
	for (size_t i = 0; i < config->ndisks; i++)
		TW_TRY(fill_spec(config, &config->disks[i], service->host, service->courier, &setup->specs[i]));
	return NULL;
}

static void hand_over(const struct setup *setup, struct tw_supervisor_setup *out)
{
	*out = (struct tw_supervisor_setup){
		.disks = setup->specs,
		.ndisks = setup->config->ndisks,
		.xen = setup->config,
	};
	tw_log_init("tapwired", setup->config->log_level);
	tw_log(TW_LOG_INFO, "", "%zu disks, %zu targets, %zu sections for guests", setup->config->ndisks,
		setup->config->ntargets, setup->config->nguests);
}

/* Sockets, spool and states do not move under a running service. */
static struct tw_error *check_same_places(const struct service *service, const struct tw_config *config)
{
	const struct tw_config *now = service->now.config;
	if (strcmp(config->state_dir, now->state_dir) == 0 && strcmp(config->run_dir, now->run_dir) == 0 &&
		strcmp(config->ring_dir, now->ring_dir) == 0 && config->xenstore == now->xenstore)
		return NULL;
	return tw_error_create(TW_CONFIG,
		"%s: state_dir, run_dir, ring_dir and xenstore change with a restart only", service->args->config);
}

static struct tw_error *reload(void *arg, struct tw_supervisor_setup *out)
{
	struct service *service = arg;
	struct setup next = { 0 };
	TW_TRY(tw_config_load(service->args->config, &next.config));
	struct tw_error *err = check_same_places(service, next.config);
	if (!err)
		err = fill_setup(service, &next);
	if (err) {
		setup_deinit(&next);
		return err;
	}
	setup_deinit(&service->before);
	service->before = service->now;
	service->now = next;
	hand_over(&service->now, out);
	return NULL;
}

static struct tw_error *run_service(struct service *service, int *status)
{
	TW_AUTO_CLOSE int lock = -1;
	const struct tw_config *config = service->now.config;
	struct tw_supervisor_options opts = {
		.state_dir = config->state_dir,
		.run_dir = config->run_dir,
		.config = service->args->config,
		.linger_s = service->args->linger_s,
		.host = service->host,
		.reload = reload,
		.arg = service,
	};
	tw_log_init("tapwired", config->log_level);
	if (geteuid() != 0)
		tw_log(TW_LOG_WARN, "",
			"not root: xenstore and guests' disks are out of reach (systemctl start tapwired)");
	TW_TRY(tw_path_make_dir(config->state_dir));
	TW_TRY(tw_path_make_dir(config->run_dir));
	TW_TRY(tw_path_lock(config->run_dir, &lock));
	if (gethostname(service->host, sizeof(service->host) - 1) < 0)
		return tw_error_errno(errno, "the host's name");
	service->courier = tw_path_join(config->run_dir, "courier.sock");
	if (!service->courier)
		return tw_error_nomem();
	TW_TRY(fill_setup(service, &service->now));
	hand_over(&service->now, &opts.setup);
	return tw_supervise(&opts, status);
}

static struct tw_error *run(const struct args *args, int *status)
{
	struct service service = { .args = args };
	TW_TRY(tw_config_load(args->config, &service.now.config));
	struct tw_error *err = run_service(&service, status);
	setup_deinit(&service.now);
	setup_deinit(&service.before);
	free(service.courier);
	return err;
}

int main(int argc, char **argv)
{
	static const struct argp argp = {
		.options = options,
		.parser = parse,
		.args_doc = "--config FILE",
		.doc = "Watch guests' disks and post file events, as the INI file says.\v"
		       "A [disk NAME] section names an image and the ring that its capture point fills; "
		       "guests and their disks are found through xenstore, where there is one. SIGTERM ends the "
		       "service in order, SIGHUP reads the file anew.",
	};
	tw_child_main(argc, argv);
	tw_tapctl_main(argc, argv);
	struct args args = { .linger_s = 5 };
	int status = 0;
	argp_program_version = "tapwired " TW_VERSION;
	argp_err_exit_status = EX_USAGE;
	tw_log_init("tapwired", TW_LOG_INFO);
	argp_parse(&argp, argc, argv, 0, NULL, &args);
	struct tw_error *err = run(&args, &status);
	if (!err)
		return status;
	tw_log(TW_LOG_ERROR, "", "%s", tw_error_message(err));
	status = tw_error_exit_status(err);
	tw_error_destroy(err);
	return status;
}
