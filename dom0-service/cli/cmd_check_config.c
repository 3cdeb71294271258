/* SPDX-License-Identifier: BSD-3-Clause */
#include "cli/commands.h"
#include "config/config.h"
#include "event/json.h"

#include <argp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { OPT_JSON = 0x100 };

struct args {
	const char *file;
	bool json;
};

static const struct argp_option options[] = {
	{ "json", OPT_JSON, NULL, 0, "Print one JSON object", 0 },
	{ 0 },
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
	struct args *args = state->input;
	switch (key) {
	case OPT_JSON:
		args->json = true;
		return 0;
	case ARGP_KEY_ARG:
		if (args->file)
			argp_error(state, "one FILE at a time");
		args->file = arg;
		return 0;
	case ARGP_KEY_NO_ARGS:
		argp_error(state, "FILE is missing");
		return 0;
	}
	return ARGP_ERR_UNKNOWN;
}

struct complaints {
	struct tw_json *json; /* NULL: print text */
};

static void complain(void *arg, enum tw_log_level level, const char *text)
{
	const struct complaints *complaints = arg;
	const char *word = level == TW_LOG_ERROR ? "error" : "warning";
	if (!complaints->json) {
		printf("%s: %s\n", word, text);
		return;
	}
	tw_json_open(complaints->json, NULL);
	tw_json_text(complaints->json, "level", word);
	tw_json_text(complaints->json, "message", text);
	tw_json_close(complaints->json);
}

static struct tw_error *check_text(const char *file)
{
	struct complaints complaints = { 0 };
	TW_TRY(tw_config_check(file, complain, &complaints));
	struct tw_config *config = NULL;
	TW_TRY(tw_config_load(file, &config));
	printf("%s: good: %zu targets, %zu disks, %zu sections for guests\n", file, config->ntargets,
		config->ndisks, config->nguests);
	for (size_t i = 0; i < config->ntargets; i++)
		printf("  target %s: %s, %s\n", config->targets[i].name, config->targets[i].url,
			config->targets[i].nsecrets ? "signed" : "not signed");
	for (size_t i = 0; i < config->ndisks; i++)
		printf("  disk %s: %s, ring %s\n", config->disks[i].name, config->disks[i].image,
			config->disks[i].ring);
	for (size_t i = 0; i < config->nguests; i++)
		printf("  guest %s: %s, %s: %s\n", config->guests[i].name, config->guests[i].domain,
			config->guests[i].vdev, config->guests[i].watch ? "watched" : "not watched");
	tw_config_destroy(config);
	return NULL;
}

static struct tw_error *check_json(const char *file)
{
	struct tw_buf out = TW_BUF_INIT;
	struct tw_json json;
	struct complaints complaints = { .json = &json };
	tw_json_begin(&json, &out);
	tw_json_open(&json, NULL);
	tw_json_text(&json, "file", file);
	tw_json_open_array(&json, "complaints");
	struct tw_error *err = tw_config_check(file, complain, &complaints);
	tw_json_close_array(&json);
	tw_json_bool(&json, "ok", err == NULL);
	tw_json_close(&json);
	struct tw_error *json_err = tw_json_end(&json);
	if (!json_err)
		printf("%.*s\n", (int)out.len, out.data);
	tw_buf_deinit(&out);
	if (!err)
		return json_err;
	tw_error_destroy(json_err);
	return err;
}

struct tw_error *tw_cmd_check_config(int argc, char **argv)
{
	static const struct argp argp = {
		.options = options,
		.parser = parse,
		.args_doc = "FILE",
		.doc = "Check an INI file and say what it means.\v"
		       "Every complaint is printed with its line. The exit status is 0 when the file is "
		       "fit for use and 78 when it is not.",
	};
	struct args args = { 0 };
	argp_parse(&argp, argc, argv, 0, NULL, &args);
	return args.json ? check_json(args.file) : check_text(args.file);
}
