/* SPDX-License-Identifier: BSD-3-Clause */
#include "courier/admin.h"

#include "base/scope.h"
#include "event/event.h"
#include "event/json.h"
#include "event/time.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <yajl/yajl_tree.h>

#define LETTERS_MAX 1000 /* in an answer */

struct question {
	const struct tw_admin *admin;
	yajl_val tree;
	struct tw_target *target; /* that is named, or NULL */
	struct tw_json json;
};

static yajl_val at(const struct question *q, const char *name)
{
	const char *path[] = { name, NULL };
	return yajl_tree_get(q->tree, path, yajl_t_any);
}

static int64_t number_at(const struct question *q, const char *name, int64_t fallback)
{
	yajl_val value = at(q, name);
	return YAJL_IS_INTEGER(value) ? YAJL_GET_INTEGER(value) : fallback;
}

static struct tw_error *find_target(struct question *q, bool required)
{
	const char *name = YAJL_GET_STRING(at(q, "target"));
	for (size_t i = 0; name && i < q->admin->ntargets; i++)
		if (strcmp(tw_target_config(q->admin->targets[i])->name, name) == 0)
			q->target = q->admin->targets[i];
	if (q->target || (!name && !required))
		return NULL;
	return name ? tw_error_create(TW_USAGE, "no target is named \"%s\"", name)
		    : tw_error_create(TW_USAGE, "a target must be named");
}

static void put_time(struct tw_json *json, const char *key, int64_t ms)
{
	char text[TW_TIME_TEXT_BYTES];
	const struct tw_time time = { .sec = ms / 1000, .nsec = (uint32_t)(ms % 1000) * 1000000 };
	tw_time_format(time, text);
	tw_json_text(json, key, text);
}

static struct tw_error *tell_targets(struct question *q)
{
	struct tw_json *json = &q->json;
	tw_json_open_array(json, "targets");
	for (size_t i = 0; i < q->admin->ntargets; i++) {
		const struct tw_config_target *config = tw_target_config(q->admin->targets[i]);
		struct tw_target_stats stats;
		tw_target_stats(q->admin->targets[i], &stats);
		tw_json_open(json, NULL);
		tw_json_text(json, "name", stats.name);
		tw_json_text(json, "url", config->url);
		tw_json_text(json, "state", stats.suspended ? "suspended" : *stats.last_error ? "failing" : "ok");
		tw_json_u64(json, "backlog", stats.backlog);
		tw_json_u64(json, "delivered", stats.delivered);
		tw_json_u64(json, "batches", stats.batches);
		tw_json_u64(json, "retries", stats.retries);
		tw_json_u64(json, "refused", stats.refused);
		tw_json_u64(json, "dropped", stats.dropped);
		tw_json_u64(json, "lanes", stats.lanes);
		tw_json_u64(json, "concurrency", stats.concurrency);
		tw_json_text(json, "epoch", stats.epoch);
		tw_json_u64(json, "next_batch", stats.next_batch);
		tw_json_u64(json, "last_status", (uint64_t)stats.last_status);
		tw_json_text(json, "last_error", stats.last_error);
		tw_json_close(json);
	}
	tw_json_close_array(json);
	return NULL;
}

static struct tw_error *tell_spool(struct question *q)
{
	struct tw_json *json = &q->json;
	struct tw_spool_stats stats;
	tw_spool_stats(q->admin->spool, &stats);
	tw_json_open(json, "spool");
	tw_json_text(json, "path", tw_spool_path(q->admin->spool));
	tw_json_u64(json, "events", stats.events);
	tw_json_u64(json, "bytes", stats.bytes);
	tw_json_u64(json, "file_bytes", stats.file_bytes);
	tw_json_u64(json, "max_bytes", q->admin->config->spool_max_bytes);
	tw_json_u64(json, "keep_ms", q->admin->config->spool_keep_ms);
	tw_json_u64(json, "dead_letters", stats.dead);
	tw_json_bool(json, "full", !tw_spool_has_room(q->admin->spool));
	tw_json_close(json);
	return NULL;
}

static struct tw_error *suspend(struct question *q, bool suspended)
{
	TW_TRY(find_target(q, true));
	return tw_target_suspend(q->target, suspended);
}

static struct tw_error *redeliver(struct question *q)
{
	TW_TRY(find_target(q, true));
	int64_t since = number_at(q, "since_ms", 0);
	if (since <= 0)
		return tw_error_create(TW_USAGE, "since_ms is missing");
	if (!q->admin->config->spool_keep_ms)
		return tw_error_create(TW_USAGE, "what is delivered is not kept: see keep in [spool]");
	tw_target_again(q->target, since);
	return NULL;
}

/* The subject of an event. */
static void put_subject(struct tw_json *json, const struct tw_spool_letter *letter)
{
	TW_AUTO_FREE char *body = strndup(letter->body, letter->len);
	const char *path[] = { "subject", NULL };
	char why[64] = "";
	yajl_val event = body ? yajl_tree_parse(body, why, sizeof(why)) : NULL;
	const char *subject = event ? YAJL_GET_STRING(yajl_tree_get(event, path, yajl_t_string)) : NULL;
	tw_json_text(json, "subject", subject ? subject : "");
	yajl_tree_free(event);
}

static void put_letter(struct tw_json *json, const struct tw_spool_letter *letter, bool whole)
{
	tw_json_u64(json, "id", (uint64_t)letter->id);
	tw_json_text(json, "target", letter->target);
	put_time(json, "time", letter->time_ms);
	tw_json_u64(json, "status", (uint64_t)letter->status);
	tw_json_text(json, "answer", letter->answer);
	tw_json_text(json, "type", tw_event_type_name((enum tw_event_type)letter->type));
	put_subject(json, letter);
	if (whole)
		tw_json_raw(json, "event", letter->body, letter->len);
}

static void list_letter(void *arg, const struct tw_spool_letter *letter)
{
	struct question *q = arg;
	tw_json_open(&q->json, NULL);
	put_letter(&q->json, letter, false);
	tw_json_close(&q->json);
}

static struct tw_error *tell_letters(struct question *q)
{
	TW_TRY(find_target(q, false));
	int64_t limit = number_at(q, "limit", LETTERS_MAX);
	if (limit < 1 || limit > LETTERS_MAX)
		limit = LETTERS_MAX;
	tw_json_open_array(&q->json, "letters");
	TW_TRY(tw_spool_letters(q->admin->spool, q->target ? tw_target_spool(q->target) : NULL,
		number_at(q, "after", 0), (uint64_t)limit, list_letter, q));
	tw_json_close_array(&q->json);
	return NULL;
}

struct one {
	struct question *q;
	int64_t id;
	bool found;
};

static void show_letter(void *arg, const struct tw_spool_letter *letter)
{
	struct one *one = arg;
	if (letter->id != one->id)
		return;
	one->found = true;
	tw_json_open(&one->q->json, "letter");
	put_letter(&one->q->json, letter, true);
	tw_json_close(&one->q->json);
}

static struct tw_error *tell_letter(struct question *q)
{
	struct one one = { .q = q, .id = number_at(q, "id", 0) };
	TW_TRY(tw_spool_letters(q->admin->spool, NULL, one.id - 1, 1, show_letter, &one));
	return one.found ? NULL : tw_error_create(TW_USAGE, "there is no dead letter %" PRId64, one.id);
}

struct ids {
	int64_t *ids;
	size_t n;
	bool failed;
};

static void note_id(void *arg, const struct tw_spool_letter *letter)
{
	struct ids *ids = arg;
	int64_t *grown = reallocarray(ids->ids, ids->n + 1, sizeof(*grown));
	if (!grown) {
		ids->failed = true;
		return;
	}
	grown[ids->n++] = letter->id;
	ids->ids = grown;
}

/* All letters, or all of a target. */
static struct tw_error *end_all(struct question *q, bool again, uint64_t *count)
{
	for (int64_t after = 0;;) {
		struct ids ids = { 0 };
		bool found;
		struct tw_error *err = tw_spool_letters(q->admin->spool,
			q->target ? tw_target_spool(q->target) : NULL, after, LETTERS_MAX, note_id, &ids);
		for (size_t i = 0; !err && i < ids.n; i++, ++*count)
			err = tw_spool_end_letter(q->admin->spool, after = ids.ids[i], again, &found);
		bool last = !ids.n;
		free(ids.ids);
		if (err)
			return err;
		if (ids.failed)
			return tw_error_nomem();
		if (last)
			return NULL;
	}
}

static struct tw_error *end_letters(struct question *q, bool again)
{
	uint64_t count = 0;
	TW_TRY(find_target(q, false));
	if (YAJL_IS_TRUE(at(q, "all"))) {
		TW_TRY(end_all(q, again, &count));
	} else {
		int64_t id = number_at(q, "id", 0);
		bool found;
		TW_TRY(tw_spool_end_letter(q->admin->spool, id, again, &found));
		if (!found)
			return tw_error_create(TW_USAGE, "there is no dead letter %" PRId64, id);
		count = 1;
	}
	tw_json_u64(&q->json, "count", count);
	return NULL;
}

static struct tw_error *obey(struct question *q)
{
	const char *command = YAJL_GET_STRING(at(q, "command"));
	if (!command)
		return tw_error_create(TW_USAGE, "no command");
	if (strcmp(command, "targets") == 0)
		return tell_targets(q);
	if (strcmp(command, "spool") == 0)
		return tell_spool(q);
	if (strcmp(command, "suspend") == 0 || strcmp(command, "resume") == 0)
		return suspend(q, *command == 's');
	if (strcmp(command, "redeliver") == 0)
		return redeliver(q);
	if (strcmp(command, "dead-letters") == 0)
		return tell_letters(q);
	if (strcmp(command, "dead-letter") == 0)
		return tell_letter(q);
	if (strcmp(command, "dead-letters-redeliver") == 0)
		return end_letters(q, true);
	if (strcmp(command, "dead-letters-drop") == 0)
		return end_letters(q, false);
	return tw_error_create(TW_USAGE, "unknown command \"%s\"", command);
}

static void refuse(struct tw_buf *out, int status, const char *why)
{
	struct tw_json json;
	tw_json_begin(&json, out);
	tw_json_open(&json, NULL);
	tw_json_bool(&json, "ok", false);
	tw_json_text(&json, "error", why);
	tw_json_u64(&json, "status", (uint64_t)status);
	tw_json_close(&json);
	tw_error_destroy(tw_json_end(&json));
}

void tw_admin_refuse(struct tw_buf *out, enum tw_code code, const char *why)
{
	struct tw_error *err = tw_error_create(code, "%s", why);
	refuse(out, tw_error_exit_status(err), why);
	tw_error_destroy(err);
}

void tw_admin_answer(const struct tw_admin *admin, const char *body, size_t len, struct tw_buf *out)
{
	struct question q = { .admin = admin };
	struct tw_buf answer = TW_BUF_INIT;
	char why[64] = "";
	TW_AUTO_FREE char *text = strndup(body ? body : "", len);
	q.tree = text ? yajl_tree_parse(text, why, sizeof(why)) : NULL;
	tw_json_begin(&q.json, &answer);
	tw_json_open(&q.json, NULL);
	tw_json_bool(&q.json, "ok", true);
	struct tw_error *err =
		YAJL_IS_OBJECT(q.tree) ? obey(&q) : tw_error_create(TW_USAGE, "a command is a JSON object");
	tw_json_close(&q.json);
	struct tw_error *ended = tw_json_end(&q.json);
	if (!err)
		err = ended;
	else
		tw_error_destroy(ended);
	if (err)
		refuse(out, tw_error_exit_status(err), tw_error_message(err));
	else
		tw_buf_append(out, answer.data, answer.len);
	tw_error_destroy(err);
	tw_buf_deinit(&answer);
	yajl_tree_free(q.tree);
}
