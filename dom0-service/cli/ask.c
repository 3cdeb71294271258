/* SPDX-License-Identifier: BSD-3-Clause */
#include "cli/ask.h"

#include "base/scope.h"
#include "supervise/paths.h"
#include "supervise/query.h"

#include <stdio.h>
#include <string.h>
#include <sysexits.h>

#define ANSWER_MS 30000

/* The courier's exit status as a code of our own. */
static enum tw_code code_of(const char *status)
{
	return strcmp(status, "64") == 0 ? TW_USAGE : TW_IO;
}

static struct tw_error *parse(struct tw_answer *out)
{
	char why[128] = "";
	out->tree = yajl_tree_parse(out->text.data, why, sizeof(why));
	if (!YAJL_IS_OBJECT(out->tree))
		return tw_error_create(TW_BAD_DATA, "the courier's answer is no JSON object");
	if (strcmp(tw_answer_text(out->tree, "ok"), "yes") == 0)
		return NULL;
	return tw_error_create(code_of(tw_answer_text(out->tree, "status")), "%s",
		tw_answer_text(out->tree, "error"));
}

struct tw_error *tw_ask(const char *state, const char *question, struct tw_answer *out)
{
	*out = (struct tw_answer){ .text = TW_BUF_INIT };
	TW_AUTO_FREE char *dir = NULL;
	if (state) {
		dir = strdup(state);
		if (!dir)
			return tw_error_nomem();
	} else {
		TW_TRY(tw_query_find_service(NULL, &dir));
	}
	TW_AUTO_FREE char *path = tw_path_join(dir, TW_COURIER_SOCKET);
	if (!path)
		return tw_error_nomem();
	TW_TRY(tw_query_command(path, ANSWER_MS, question, &out->text));
	return parse(out);
}

void tw_answer_deinit(struct tw_answer *answer)
{
	yajl_tree_free(answer->tree);
	tw_buf_deinit(&answer->text);
}

const char *tw_answer_text(yajl_val object, const char *name)
{
	const char *path[] = { name, NULL };
	yajl_val value = object ? yajl_tree_get(object, path, yajl_t_any) : NULL;
	if (YAJL_IS_STRING(value))
		return YAJL_GET_STRING(value);
	if (YAJL_IS_NUMBER(value))
		return YAJL_GET_NUMBER(value);
	if (YAJL_IS_TRUE(value))
		return "yes";
	return YAJL_IS_FALSE(value) ? "no" : "";
}

static struct tw_error *fill(struct tw_table *table, yajl_val array, const char *const *heads,
	const char *const *members)
{
	TW_TRY(tw_table_row(table));
	for (; *heads; heads++)
		TW_TRY(tw_table_cell(table, *heads));
	for (size_t i = 0; YAJL_IS_ARRAY(array) && i < YAJL_GET_ARRAY(array)->len; i++) {
		TW_TRY(tw_table_row(table));
		for (const char *const *member = members; *member; member++)
			TW_TRY(tw_table_cell(table,
				tw_answer_text(YAJL_GET_ARRAY(array)->values[i], *member)));
	}
	return NULL;
}

struct tw_error *tw_answer_table(yajl_val array, const char *const *heads, const char *const *members)
{
	struct tw_table table = TW_TABLE_INIT;
	struct tw_error *err = fill(&table, array, heads, members);
	if (!err)
		tw_table_print(&table, stdout);
	tw_table_deinit(&table);
	return err;
}
