/* SPDX-License-Identifier: BSD-3-Clause */
/* What an answer says of the events of a batch. */
#include "courier/format.h"

#include "base/scope.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <yajl/yajl_tree.h>

void tw_judgement_deinit(struct tw_judgement *judgement)
{
	free(judgement->refused);
}

static void copy_text(const char *text, size_t len, char *out, size_t size)
{
	size_t n = 0;
	for (; n < len && n + 1 < size; n++)
		out[n] = (unsigned char)text[n] < ' ' || (unsigned char)text[n] >= 0x7f ? '?' : text[n];
	out[n] = '\0';
}

static yajl_val parse(const struct tw_webhook_result *result)
{
	char why[64] = "";
	TW_AUTO_FREE char *text = strndup(result->answer ? result->answer : "", result->answer_len);
	return text ? yajl_tree_parse(text, why, sizeof(why)) : NULL;
}

static yajl_val at(yajl_val object, const char *a, const char *b)
{
	const char *path[] = { a, b, NULL };
	return object ? yajl_tree_get(object, path, yajl_t_any) : NULL;
}

/* The one member of an item: {"create": {...}}. */
static yajl_val action_of(yajl_val item)
{
	return YAJL_IS_OBJECT(item) && item->u.object.len == 1 ? item->u.object.values[0] : NULL;
}

static struct tw_error *add_refused(struct tw_judgement *out, uint64_t i, long status, yajl_val action)
{
	struct tw_refused *grown = reallocarray(out->refused, out->nrefused + 1, sizeof(*grown));
	if (!grown)
		return tw_error_nomem();
	out->refused = grown;
	struct tw_refused *refused = &grown[out->nrefused++];
	const char *type = YAJL_GET_STRING(at(action, "error", "type"));
	const char *reason = YAJL_GET_STRING(at(action, "error", "reason"));
	char text[sizeof(refused->reason)];
	snprintf(text, sizeof(text), "%s: %s", type ? type : "error", reason ? reason : "");
	*refused = (struct tw_refused){ .i = i, .status = status };
	copy_text(text, strlen(text), refused->reason, sizeof(refused->reason));
	return NULL;
}

/* Items in the order of the batch, each with a status. 409 says that the id is there: it came before. */
static struct tw_error *judge_items(yajl_val items, struct tw_judgement *out)
{
	uint64_t good = 0;
	for (size_t i = 0; i < YAJL_GET_ARRAY(items)->len; i++) {
		yajl_val action = action_of(YAJL_GET_ARRAY(items)->values[i]);
		yajl_val value = at(action, "status", NULL);
		long status = YAJL_IS_INTEGER(value) ? (long)YAJL_GET_INTEGER(value) : 0;
		enum tw_verdict verdict = status == 409 ? TW_DELIVERED : tw_target_verdict(status);
		if (verdict == TW_RETRY) { /* with those that are good: their ids are known then */
			out->verdict = TW_RETRY;
			out->status = status;
			return NULL;
		}
		if (verdict == TW_DELIVERED)
			good++;
		else
			TW_TRY(add_refused(out, i, status, action));
	}
	if (good || !out->nrefused)
		return NULL;
	/* All of them: that may speak of the target rather than of the events. */
	out->verdict = TW_REFUSED;
	out->status = out->refused[0].status;
	snprintf(out->answer, sizeof(out->answer), "%s", out->refused[0].reason);
	out->nrefused = 0;
	return NULL;
}

static struct tw_error *judge_elasticsearch(const struct tw_webhook_result *result, uint64_t count,
	struct tw_judgement *out)
{
	yajl_val tree = parse(result);
	yajl_val items = at(tree, "items", NULL);
	struct tw_error *err = NULL;
	if (YAJL_IS_FALSE(at(tree, "errors", NULL))) {
		yajl_tree_free(tree);
		return NULL;
	}
	if (YAJL_IS_ARRAY(items) && YAJL_GET_ARRAY(items)->len == count) {
		err = judge_items(items, out);
	} else { /* a 200 that says nothing of the events is no acknowledgement */
		out->verdict = TW_RETRY;
		out->status = 0;
	}
	yajl_tree_free(tree);
	return err;
}

static void judge_splunk(const struct tw_webhook_result *result, uint64_t count, struct tw_judgement *out)
{
	yajl_val tree = parse(result);
	yajl_val number = at(tree, "invalid-event-number", NULL);
	long long i = YAJL_IS_INTEGER(number) ? YAJL_GET_INTEGER(number) : 0;
	if (i > 0 && (uint64_t)i < count)
		out->stopped_at = (uint64_t)i;
	yajl_tree_free(tree);
}

struct tw_error *tw_format_judge(enum tw_format format, const struct tw_webhook_result *result, uint64_t count,
	struct tw_judgement *out)
{
	*out = (struct tw_judgement){ .verdict = tw_target_verdict(result->status), .status = result->status };
	copy_text(result->answer, result->answer_len, out->answer, sizeof(out->answer));
	if (format == TW_FORMAT_ELASTICSEARCH && out->verdict == TW_DELIVERED)
		return judge_elasticsearch(result, count, out);
	if (format == TW_FORMAT_SPLUNK_HEC && out->verdict == TW_REFUSED)
		judge_splunk(result, count, out);
	return NULL;
}
