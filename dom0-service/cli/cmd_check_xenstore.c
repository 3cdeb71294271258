/* SPDX-License-Identifier: BSD-3-Clause */
#include "cli/commands.h"
#include "event/json.h"
#include "xenstore/check.h"

#include <argp.h>
#include <stdio.h>

enum { OPT_JSON = 0x100 };

struct args {
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
		argp_error(state, "too many arguments: %s", arg);
		return 0;
	}
	return ARGP_ERR_UNKNOWN;
}

/* What stands in xenstore must not reach the terminal as a command. */
static void print_harmless(const char *text)
{
	for (; *text; text++)
		putchar((unsigned char)*text < ' ' || *text == 0x7f ? '?' : *text);
}

static void print_complaint(void *arg, const char *path, const char *text)
{
	(void)arg;
	printf("%s: ", path);
	print_harmless(text);
	putchar('\n');
}

static void add_complaint(void *arg, const char *path, const char *text)
{
	struct tw_json *json = arg;
	tw_json_open(json, NULL);
	tw_json_text(json, "path", path);
	tw_json_text(json, "message", text);
	tw_json_close(json);
}

static struct tw_error *check_text(struct tw_store *store, struct tw_check_result *result)
{
	TW_TRY(tw_xenstore_check(store, print_complaint, NULL, result));
	printf("%zu disks, %zu of them told of by tapwired; %zu keys, %zu of them wrong\n", result->disks,
		result->ours, result->keys, result->wrong);
	return NULL;
}

static struct tw_error *check_json(struct tw_store *store, struct tw_check_result *result)
{
	struct tw_buf out = TW_BUF_INIT;
	struct tw_json json;
	tw_json_begin(&json, &out);
	tw_json_open(&json, NULL);
	tw_json_open_array(&json, "complaints");
	struct tw_error *err = tw_xenstore_check(store, add_complaint, &json, result);
	tw_json_close_array(&json);
	tw_json_u64(&json, "disks", result->disks);
	tw_json_u64(&json, "told", result->ours);
	tw_json_u64(&json, "keys", result->keys);
	tw_json_bool(&json, "ok", result->wrong == 0);
	tw_json_close(&json);
	struct tw_error *json_err = tw_json_end(&json);
	if (!err && !json_err)
		printf("%.*s\n", (int)out.len, out.data);
	tw_buf_deinit(&out);
	if (!err)
		return json_err;
	tw_error_destroy(json_err);
	return err;
}

struct tw_error *tw_cmd_check_xenstore(int argc, char **argv)
{
	static const struct argp argp = {
		.options = options,
		.parser = parse,
		.doc = "Hold a live xenstore against the schema.\v"
		       "Looks at every disk that this domain serves and at what tapwired says of it and of "
		       "itself. Every deviation is printed with its path; then the exit status is 65.",
	};
	struct args args = { 0 };
	struct tw_check_result result = { 0 };
	struct tw_store *store;
	argp_parse(&argp, argc, argv, 0, NULL, &args);
	TW_TRY(tw_store_open(false, &store));
	struct tw_error *err = args.json ? check_json(store, &result) : check_text(store, &result);
	tw_store_close(store);
	if (!err && result.wrong)
		return tw_error_create(TW_BAD_DATA, "xenstore deviates from the schema in %zu places", result.wrong);
	return err;
}
