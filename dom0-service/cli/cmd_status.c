/* SPDX-License-Identifier: BSD-3-Clause */
#include "cli/commands.h"
#include "cli/running_options.h"
#include "base/log.h"
#include "base/scope.h"
#include "cli/table.h"
#include "event/json.h"
#include "supervise/paths.h"
#include "supervise/query.h"

#include <argp.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <yajl/yajl_tree.h>

#define ANSWER_MS 3000

/* What the two processes said, as JSON text; the courier's is empty when it does not answer. */
struct answers {
	struct tw_buf supervisor;
	struct tw_buf courier;
};

static struct tw_error *ask(const char *dir, struct answers *answers)
{
	TW_AUTO_FREE char *control = tw_path_join(dir, TW_CONTROL_SOCKET);
	TW_AUTO_FREE char *courier = tw_path_join(dir, TW_COURIER_SOCKET);
	if (!control || !courier)
		return tw_error_nomem();
	TW_TRY(tw_query_supervisor(control, ANSWER_MS, &answers->supervisor));
	struct tw_error *err = tw_query_courier(courier, ANSWER_MS, &answers->courier);
	if (err)
		tw_log(TW_LOG_WARN, "", "%s", tw_error_message(err));
	tw_error_destroy(err);
	return NULL;
}

static struct tw_error *print_json(const struct answers *answers)
{
	struct tw_buf out = TW_BUF_INIT;
	struct tw_json json;
	const char *courier = answers->courier.len ? answers->courier.data : "";
	tw_json_begin(&json, &out);
	tw_json_open(&json, NULL);
	tw_json_raw(&json, "service", answers->supervisor.data, strlen(answers->supervisor.data));
	tw_json_raw(&json, "courier", courier, strlen(courier));
	tw_json_close(&json);
	struct tw_error *err = tw_json_end(&json);
	if (!err)
		printf("%.*s\n", (int)out.len, out.data);
	tw_buf_deinit(&out);
	return err;
}

/* --- text --- */

static yajl_val at(yajl_val object, const char *a, const char *b)
{
	const char *path[] = { a, b, NULL };
	return object ? yajl_tree_get(object, path, yajl_t_any) : NULL;
}

/* A scalar as text, "" for anything else. Numbers of any size keep their digits. */
static const char *scalar(yajl_val value)
{
	if (YAJL_IS_STRING(value))
		return YAJL_GET_STRING(value);
	if (YAJL_IS_NUMBER(value))
		return YAJL_GET_NUMBER(value);
	if (YAJL_IS_TRUE(value))
		return "yes";
	return YAJL_IS_FALSE(value) ? "no" : "";
}

static struct tw_error *add_cells(struct tw_table *table, const char *const *cells)
{
	TW_TRY(tw_table_row(table));
	for (; *cells; cells++)
		TW_TRY(tw_table_cell(table, *cells));
	return NULL;
}

static struct tw_error *add_disks(yajl_val service, struct tw_table *table)
{
	static const char *const head[] = { "DISK", "DOMAIN", "VDEV", "LIVE", "STATE", "FILES",
		"EVENTS", "LAG", "GAPS", "RESYNCS", NULL };
	TW_TRY(add_cells(table, head));
	yajl_val disks = at(service, "disks", NULL);
	for (size_t i = 0; YAJL_IS_ARRAY(disks) && i < YAJL_GET_ARRAY(disks)->len; i++) {
		yajl_val disk = YAJL_GET_ARRAY(disks)->values[i];
		const char *const cells[] = {
			scalar(at(disk, "name", NULL)),
			scalar(at(disk, "domain", NULL)),
			scalar(at(disk, "vdev", NULL)),
			scalar(at(disk, "live", NULL)),
			scalar(at(disk, "inspector", "state")),
			scalar(at(disk, "inspector", "files")),
			scalar(at(disk, "inspector", "events")),
			scalar(at(disk, "inspector", "lag_bytes")),
			scalar(at(disk, "inspector", "gaps")),
			scalar(at(disk, "inspector", "resyncs")),
			NULL,
		};
		TW_TRY(add_cells(table, cells));
	}
	return NULL;
}

static struct tw_error *add_volumes_of(yajl_val disk, struct tw_table *table)
{
	yajl_val places = at(disk, "inspector", "places");
	for (size_t i = 0; YAJL_IS_ARRAY(places) && i < YAJL_GET_ARRAY(places)->len; i++) {
		yajl_val place = YAJL_GET_ARRAY(places)->values[i];
		const char *const cells[] = {
			scalar(at(disk, "name", NULL)),
			scalar(at(place, "place", NULL)),
			scalar(at(place, "fstype", NULL)),
			scalar(at(place, "bytes", NULL)),
			scalar(at(place, "watched", NULL)),
			scalar(at(place, "reason", NULL)),
			NULL,
		};
		TW_TRY(add_cells(table, cells));
	}
	return NULL;
}

static struct tw_error *add_volumes(yajl_val service, struct tw_table *table)
{
	static const char *const head[] = { "DISK", "PLACE", "FSTYPE", "BYTES", "WATCHED", "REASON",
		NULL };
	TW_TRY(add_cells(table, head));
	yajl_val disks = at(service, "disks", NULL);
	for (size_t i = 0; YAJL_IS_ARRAY(disks) && i < YAJL_GET_ARRAY(disks)->len; i++)
		TW_TRY(add_volumes_of(YAJL_GET_ARRAY(disks)->values[i], table));
	return NULL;
}

/* The most important one of what is said about a disk. */
static const char *remark_on(yajl_val disk)
{
	static const char *const keys[] = { "to_do", "error", "remark" };
	const char *text = "";
	for (size_t i = 0; !*text && i < sizeof(keys) / sizeof(keys[0]); i++)
		text = scalar(at(disk, keys[i], NULL));
	return text;
}

static struct tw_error *add_guests(yajl_val service, struct tw_table *table)
{
	static const char *const head[] = { "GUEST", "DOMID", "VDEV", "MODE", "TARGET", "CAPTURE", "STATE",
		"REMARK", NULL };
	yajl_val guests = at(service, "guests", NULL);
	for (size_t i = 0; YAJL_IS_ARRAY(guests) && i < YAJL_GET_ARRAY(guests)->len; i++) {
		yajl_val disk = YAJL_GET_ARRAY(guests)->values[i];
		const char *const cells[] = {
			scalar(at(disk, "guest", NULL)),
			scalar(at(disk, "domid", NULL)),
			scalar(at(disk, "vdev", NULL)),
			scalar(at(disk, "mode", NULL)),
			scalar(at(disk, "target", NULL)),
			scalar(at(disk, "capture", NULL)),
			scalar(at(disk, "state", NULL)),
			remark_on(disk),
			NULL,
		};
		if (i == 0)
			TW_TRY(add_cells(table, head));
		TW_TRY(add_cells(table, cells));
	}
	return NULL;
}

/* The courier knows best what there is to say about a target: its keys are the columns. */
static struct tw_error *add_targets(yajl_val courier, struct tw_table *table)
{
	yajl_val targets = at(courier, "targets", NULL);
	for (size_t i = 0; YAJL_IS_ARRAY(targets) && i < YAJL_GET_ARRAY(targets)->len; i++) {
		yajl_val target = YAJL_GET_ARRAY(targets)->values[i];
		if (!YAJL_IS_OBJECT(target))
			continue;
		const typeof(target->u.object) *fields = &target->u.object;
		if (i == 0) {
			TW_TRY(tw_table_row(table));
			for (size_t k = 0; k < fields->len; k++)
				TW_TRY(tw_table_cell(table, fields->keys[k]));
		}
		TW_TRY(tw_table_row(table));
		for (size_t k = 0; k < fields->len; k++)
			TW_TRY(tw_table_cell(table, scalar(fields->values[k])));
	}
	return NULL;
}

static struct tw_error *print_tables(const char *dir, yajl_val service, yajl_val courier)
{
	struct tw_table disks = TW_TABLE_INIT;
	struct tw_table volumes = TW_TABLE_INIT;
	struct tw_table targets = TW_TABLE_INIT;
	struct tw_table guests = TW_TABLE_INIT;
	struct tw_error *err = add_disks(service, &disks);
	if (!err)
		err = add_guests(service, &guests);
	if (!err)
		err = add_volumes(service, &volumes);
	if (!err)
		err = add_targets(courier, &targets);
	if (!err) {
		printf("tapwire %s, pid %s, %s, in %s\n", scalar(at(service, "version", NULL)),
			scalar(at(service, "pid", NULL)), scalar(at(service, "state", NULL)), dir);
		if (at(service, "xenstore", "state"))
			printf("xenstore: %s, %s guests\n", scalar(at(service, "xenstore", "state")),
				scalar(at(service, "xenstore", "guests")));
		putchar('\n');
		tw_table_print(&guests, stdout);
		if (guests.rows)
			putchar('\n');
		tw_table_print(&disks, stdout);
		putchar('\n');
		tw_table_print(&volumes, stdout);
		if (targets.rows)
			putchar('\n');
		tw_table_print(&targets, stdout);
	}
	tw_table_deinit(&guests);
	tw_table_deinit(&disks);
	tw_table_deinit(&volumes);
	tw_table_deinit(&targets);
	return err;
}

static struct tw_error *print_text(const char *dir, const struct answers *answers)
{
	char why[128] = "";
	yajl_val service = yajl_tree_parse(answers->supervisor.data, why, sizeof(why));
	if (!service)
		return tw_error_create(TW_BAD_DATA, "the service's answer is no JSON");
	yajl_val courier = NULL;
	if (answers->courier.len)
		courier = yajl_tree_parse(answers->courier.data, why, sizeof(why));
	struct tw_error *err = print_tables(dir, service, courier);
	yajl_tree_free(service);
	yajl_tree_free(courier);
	return err;
}

struct tw_error *tw_cmd_status(int argc, char **argv)
{
	static const struct argp_child children[] = { { .argp = &tw_running_argp }, { 0 } };
	static const struct argp argp = {
		.parser = tw_running_parse_none,
		.children = children,
		.doc = "Show the disks and targets of a running service.\v"
		       "Without --state, a tapwired in /run/tapwire is asked, else a tapwire serve in its "
		       "default directory.",
	};
	struct tw_running_options running = { 0 };
	argp_parse(&argp, argc, argv, 0, NULL, &running);
	TW_AUTO_FREE char *dir = NULL;
	TW_TRY(tw_query_find_service(running.state, &dir));
	struct answers answers = { TW_BUF_INIT, TW_BUF_INIT };
	struct tw_error *err = ask(dir, &answers);
	if (!err)
		err = running.json ? print_json(&answers) : print_text(dir, &answers);
	tw_buf_deinit(&answers.supervisor);
	tw_buf_deinit(&answers.courier);
	return err;
}
