/* SPDX-License-Identifier: BSD-3-Clause */
#include "courier/filter.h"

#include "base/patterns.h"
#include "base/scope.h"
#include "courier/fields.h"
#include "event/event.h"

#include <stdlib.h>
#include <string.h>

struct tw_filter {
	uint64_t mask;
	struct tw_patterns domains;
	struct tw_patterns volumes;
	struct tw_patterns paths;
	struct tw_buf text;
};

static struct tw_error *compile(char *const *texts, size_t n, struct tw_patterns *out)
{
	for (size_t i = 0; i < n; i++)
		TW_TRY(tw_patterns_add(out, texts[i]));
	return NULL;
}

static struct tw_error *compile_all(const struct tw_config_target *config, struct tw_filter *filter)
{
	TW_TRY(compile(config->domains.items, config->domains.n, &filter->domains));
	TW_TRY(compile(config->volumes.items, config->volumes.n, &filter->volumes));
	return compile(config->paths.items, config->paths.n, &filter->paths);
}

struct tw_error *tw_filter_create(const struct tw_config_target *config, struct tw_filter **out)
{
	struct tw_filter *filter = calloc(1, sizeof(*filter));
	if (!filter)
		return tw_error_nomem();
	filter->mask = config->events;
	struct tw_error *err = compile_all(config, filter);
	if (err)
		tw_filter_destroy(filter);
	else
		*out = filter;
	return err;
}

void tw_filter_destroy(struct tw_filter *filter)
{
	if (!filter)
		return;
	tw_patterns_deinit(&filter->domains);
	tw_patterns_deinit(&filter->volumes);
	tw_patterns_deinit(&filter->paths);
	tw_buf_deinit(&filter->text);
	free(filter);
}

static bool wants_any_name(const struct tw_patterns *patterns, const struct tw_buf *names)
{
	return tw_patterns_match_any(patterns, names->data, names->len);
}

static void add_name(struct tw_buf *names, const char *text, size_t len)
{
	tw_buf_append(names, text, len);
	tw_buf_append(names, "", 1);
}

/* The n-th part of /xen/<host>/<domain>/<vdev>/<volume>, from 0. */
static const char *source_part(const char *source, size_t source_len, int n, size_t *len)
{
	const char *end = source + source_len;
	const char *at = source;
	while (at < end && *at == '/' && n--) {
		const char *next = memchr(at + 1, '/', (size_t)(end - at - 1));
		at = next ? next : end;
	}
	if (at < end)
		at++;
	const char *next = memchr(at, '/', (size_t)(end - at));
	*len = (size_t)((next ? next : end) - at);
	return at;
}

static bool wants_domain(struct tw_filter *filter, const struct tw_fields *fields, const char *source)
{
	struct tw_buf *names = &filter->text;
	size_t len;
	if (!filter->domains.n)
		return true;
	tw_buf_reset(names);
	const char *uuid = source_part(source, strlen(source), 2, &len);
	add_name(names, uuid, len);
	tw_value_text(&fields->domain_name, names);
	tw_buf_append(names, "", 1);
	return wants_any_name(&filter->domains, names);
}

/* A volume's names: its device and UUID, with a slash between and each alone. */
static bool wants_volume(struct tw_filter *filter, const struct tw_fields *fields)
{
	struct tw_buf *names = &filter->text;
	size_t len;
	if (!filter->volumes.n)
		return true;
	tw_buf_reset(names);
	const struct tw_value source = { fields->source.at + 1, fields->source.len - 2 };
	const char *vdev = source_part(source.at, source.len, 3, &len);
	const char *end = source.at + source.len;
	add_name(names, vdev, len);
	add_name(names, vdev, (size_t)(end - vdev));
	const char *volume = source_part(source.at, source.len, 4, &len);
	if (len)
		add_name(names, volume, len);
	return wants_any_name(&filter->volumes, names);
}

static bool wants_path(struct tw_filter *filter, const struct tw_value *path, const struct tw_value *raw)
{
	tw_buf_reset(&filter->text);
	if (raw->at)
		tw_value_base64(raw, &filter->text);
	else
		tw_value_text(path, &filter->text);
	return tw_patterns_match(&filter->paths, filter->text.data ? filter->text.data : "", filter->text.len);
}

static bool wants(void *arg, const char *source, unsigned int type, const char *body, size_t len)
{
	struct tw_filter *filter = arg;
	struct tw_fields fields;
	if (type == TW_EVENT_SPOOL_DROPPED)
		return true;
	tw_fields_get(body, len, &fields);
	if (!fields.source.at || fields.source.len < 2)
		return true;
	if (!wants_domain(filter, &fields, source) || !wants_volume(filter, &fields))
		return false;
	if (!filter->paths.n || !fields.subject.at)
		return true; /* it is about a volume or a disk */
	/* What moves in or out is wanted. */
	return wants_path(filter, &fields.subject, &fields.path_b64) ||
		(fields.old_path.at && wants_path(filter, &fields.old_path, &fields.old_path_b64));
}

struct tw_spool_filter tw_filter_for_spool(struct tw_filter *filter)
{
	bool all = !filter->domains.n && !filter->volumes.n && !filter->paths.n;
	return (struct tw_spool_filter){ .mask = filter->mask, .wants = all ? NULL : wants, .arg = filter };
}
