/* SPDX-License-Identifier: BSD-3-Clause */
#include "courier/envelope.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <yajl/yajl_parse.h>

#define ID_MAX 160

enum place { ELSEWHERE, AT_SOURCE, AT_ID };

struct check {
	const char *source;
	size_t source_len;
	char id[ID_MAX];
	size_t id_len;
	int depth;
	enum place place; /* the outermost attribute that the next value belongs to */
	int sources;	  /* seen, and of them right */
	int good_sources;
	int ids;
	int good_ids;
};

static int open_any(void *arg)
{
	struct check *c = arg;
	c->depth++;
	c->place = ELSEWHERE;
	return 1;
}

static int close_any(void *arg)
{
	struct check *c = arg;
	c->depth--;
	return 1;
}

static bool is(const unsigned char *text, size_t len, const char *want, size_t want_len)
{
	return len == want_len && memcmp(text, want, len) == 0;
}

static int map_key(void *arg, const unsigned char *text, size_t len)
{
	struct check *c = arg;
	c->place = ELSEWHERE;
	if (c->depth != 1)
		return 1;
	if (is(text, len, "source", 6)) {
		c->place = AT_SOURCE;
		c->sources++;
	} else if (is(text, len, "id", 2)) {
		c->place = AT_ID;
		c->ids++;
	}
	return 1;
}

static int string_value(void *arg, const unsigned char *text, size_t len)
{
	struct check *c = arg;
	if (c->place == AT_SOURCE)
		c->good_sources += len >= c->source_len && memcmp(text, c->source, c->source_len) == 0 &&
			(len == c->source_len || text[c->source_len] == '/');
	else if (c->place == AT_ID)
		c->good_ids += is(text, len, c->id, c->id_len);
	c->place = ELSEWHERE;
	return 1;
}

static const yajl_callbacks callbacks = {
	.yajl_string = string_value,
	.yajl_start_map = open_any,
	.yajl_map_key = map_key,
	.yajl_end_map = close_any,
	.yajl_start_array = open_any,
	.yajl_end_array = close_any,
};

struct tw_error *tw_envelope_check(const char *body, size_t len, const struct tw_envelope *envelope)
{
	if (len < 2 || body[0] != '{' || body[len - 1] != '}')
		return tw_error_create(TW_BAD_DATA, "event that is no JSON object");
	struct check check = { .source = envelope->source, .source_len = strlen(envelope->source) };
	check.id_len = (size_t)snprintf(check.id, sizeof(check.id), "%s-%" PRIu64, envelope->epoch,
		envelope->sequence);
	if (check.id_len >= sizeof(check.id))
		return tw_error_create(TW_BAD_DATA, "event whose epoch is too long");
	yajl_handle parser = yajl_alloc(&callbacks, NULL, &check);
	if (!parser)
		return tw_error_nomem();
	bool good = yajl_parse(parser, (const unsigned char *)body, len) == yajl_status_ok &&
		yajl_complete_parse(parser) == yajl_status_ok;
	size_t at = yajl_get_bytes_consumed(parser);
	yajl_free(parser);
	if (!good)
		return tw_error_create(TW_BAD_DATA, "event that is no JSON: stopped at byte %zu of %zu", at, len);
	if (check.sources != 1 || check.good_sources != 1)
		return tw_error_create(TW_BAD_DATA, "event whose source is not %s or below it", envelope->source);
	if (check.ids != 1 || check.good_ids != 1)
		return tw_error_create(TW_BAD_DATA, "event whose id is not %s", check.id);
	return NULL;
}
