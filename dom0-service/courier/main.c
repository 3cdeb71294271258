/* SPDX-License-Identifier: BSD-3-Clause */
/* tapwire-courier: the spool and the HTTP side of tapwire. */
#include "base/log.h"
#include "courier/courier.h"

#include <argp.h>
#include <curl/curl.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sysexits.h>

#define DEFAULT_CONFIG "/etc/tapwire/tapwire.conf"

enum { KEY_SOCKET = 256, KEY_SPOOL, KEY_POST, KEY_SECRET_FILE, KEY_DRAIN };

struct arguments {
	const char *config;
	const char *post;
	const char *secret_file;
	struct tw_courier_options courier;
};

static const struct argp_option options[] = {
	{ "config", 'c', "FILE", 0, "Read the INI file FILE (default " DEFAULT_CONFIG ")", 0 },
	{ "post", KEY_POST, "URL", 0, "Send every event to URL, instead of reading an INI file", 0 },
	{ "secret-file", KEY_SECRET_FILE, "FILE", 0, "Sign what --post sends with the secret in FILE", 0 },
	{ "socket", KEY_SOCKET, "PATH", 0, "Listen at PATH (default RUN_DIR/courier.sock)", 0 },
	{ "spool", KEY_SPOOL, "PATH", 0, "Keep events in PATH (default STATE_DIR/spool.db)", 0 },
	{ "drain", KEY_DRAIN, "SECONDS", 0,
		"After SIGTERM, go on for at most SECONDS to deliver what is in the spool (default 0)", 0 },
	{ 0 },
};

static error_t parse_option(int key, char *arg, struct argp_state *state)
{
	struct arguments *args = state->input;
	char *end;
	switch (key) {
	case 'c':
		args->config = arg;
		return 0;
	case KEY_POST:
		args->post = arg;
		return 0;
	case KEY_SECRET_FILE:
		args->secret_file = arg;
		return 0;
	case KEY_SOCKET:
		args->courier.socket = arg;
		return 0;
	case KEY_SPOOL:
		args->courier.spool = arg;
		return 0;
	case KEY_DRAIN: {
		unsigned long seconds = strtoul(arg, &end, 10);
		if (end == arg || *end || seconds > 3600)
			argp_error(state, "--drain is \"%s\", expected seconds from 0 to 3600", arg);
		args->courier.drain_ms = (unsigned int)seconds * 1000;
		return 0;
	}
	case ARGP_KEY_ARG:
		argp_error(state, "unexpected argument \"%s\"", arg);
		return EINVAL;
	case ARGP_KEY_END:
		if (args->post && args->config)
			argp_error(state, "--post and --config exclude each other");
		if (args->secret_file && !args->post)
			argp_error(state, "--secret-file goes with --post");
		return 0;
	default:
		return ARGP_ERR_UNKNOWN;
	}
}

static const struct argp argp = {
	.options = options,
	.parser = parse_option,
	.doc = "Keeps events on disk until every configured target has acknowledged them, and POSTs them in "
	       "batches.\vSee tapwire-courier(8) and tapwire.conf(5).",
};

static struct tw_error *serve(const struct arguments *args)
{
	struct tw_config *config;
	if (args->post)
		TW_TRY(tw_config_for_url(args->post, args->secret_file, &config));
	else
		TW_TRY(tw_config_load(args->config ? args->config : DEFAULT_CONFIG, &config));
	tw_log_init("tapwire-courier", config->log_level);
	struct tw_error *err = tw_courier_run(config, &args->courier);
	tw_config_destroy(config);
	return err;
}

int main(int argc, char **argv)
{
	argp_err_exit_status = EX_USAGE;
	argp_program_version = "tapwire-courier " TW_VERSION;
	tw_log_init("tapwire-courier", TW_LOG_INFO);
	signal(SIGPIPE, SIG_IGN);
	struct arguments args = { 0 };
	argp_parse(&argp, argc, argv, 0, NULL, &args);
	curl_global_init(CURL_GLOBAL_DEFAULT);
	struct tw_error *err = serve(&args);
	curl_global_cleanup();
	if (!err)
		return EXIT_SUCCESS;
	int status = tw_error_exit_status(err);
	tw_log(TW_LOG_ERROR, "", "%s", tw_error_message(err));
	tw_error_destroy(err);
	return status;
}
