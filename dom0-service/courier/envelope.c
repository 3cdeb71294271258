/* SPDX-License-Identifier: BSD-3-Clause */
#include "courier/envelope.h"

#include <stdbool.h>
#include <string.h>
#include <yajl/yajl_parse.h>

struct check {
	const char *source;
	size_t source_len;
	int depth;
	bool at_source; /* the next value belongs to the outermost "source" */
	int sources;
	bool good_source;
};

static int open_any(void *arg)
{
	struct check *c = arg;
	c->depth++;
	c->at_source = false;
	return 1;
}

static int close_any(void *arg)
{
	struct check *c = arg;
	c->depth--;
	return 1;
}

static int map_key(void *arg, const unsigned char *text, size_t len)
{
	struct check *c = arg;
	c->at_source = c->depth == 1 && len == 6 && memcmp(text, "source", 6) == 0;
	c->sources += c->at_source;
	return 1;
}

static int string_value(void *arg, const unsigned char *text, size_t len)
{
	struct check *c = arg;
	if (!c->at_source)
		return 1;
	c->good_source = len >= c->source_len && memcmp(text, c->source, c->source_len) == 0 &&
		(len == c->source_len || text[c->source_len] == '/');
	c->at_source = false;
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

struct tw_error *tw_envelope_check(const char *body, size_t len, const char *source)
{
	if (len < 2 || body[0] != '{' || body[len - 1] != '}')
		return tw_error_create(TW_BAD_DATA, "event that is no JSON object");
	struct check check = { .source = source, .source_len = strlen(source) };
	yajl_handle parser = yajl_alloc(&callbacks, NULL, &check);
	if (!parser)
		return tw_error_nomem();
	bool good = yajl_parse(parser, (const unsigned char *)body, len) == yajl_status_ok &&
		yajl_complete_parse(parser) == yajl_status_ok;
	size_t at = yajl_get_bytes_consumed(parser);
	yajl_free(parser);
	if (!good)
		return tw_error_create(TW_BAD_DATA, "event that is no JSON: stopped at byte %zu of %zu", at, len);
	if (check.sources != 1 || !check.good_source)
		return tw_error_create(TW_BAD_DATA, "event whose source is not \"%s\" or below it", source);
	return NULL;
}
