/* SPDX-License-Identifier: BSD-3-Clause */
/* Input: the body of an event. What the courier takes, another JSON parser must take as well, with the same id and
 * source: it goes into batches that others read. */
#include "courier/envelope.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <yajl/yajl_parse.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct seen {
	int depth;
	const char *key; /* of the object itself, that the next value belongs to */
	int ids;
	int sources;
};

static int open_any(void *arg)
{
	((struct seen *)arg)->depth++;
	((struct seen *)arg)->key = NULL;
	return 1;
}

static int close_any(void *arg)
{
	((struct seen *)arg)->depth--;
	return 1;
}

static int map_key(void *arg, const unsigned char *text, size_t len)
{
	struct seen *seen = arg;
	seen->key = NULL;
	if (seen->depth == 1 && len == 2 && memcmp(text, "id", 2) == 0)
		seen->key = "id";
	if (seen->depth == 1 && len == 6 && memcmp(text, "source", 6) == 0)
		seen->key = "source";
	return 1;
}

static int string_value(void *arg, const unsigned char *text, size_t len)
{
	struct seen *seen = arg;
	if (seen->key && strcmp(seen->key, "id") == 0) {
		seen->ids++;
		if (len != 3 || memcmp(text, "e-7", 3) != 0)
			abort();
	} else if (seen->key) {
		seen->sources++;
		if (len < 4 || memcmp(text, "/x/y", 4) != 0)
			abort();
	}
	seen->key = NULL;
	return 1;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const yajl_callbacks callbacks = {
		.yajl_string = string_value,
		.yajl_start_map = open_any,
		.yajl_map_key = map_key,
		.yajl_end_map = close_any,
		.yajl_start_array = open_any,
		.yajl_end_array = close_any,
	};
	const struct tw_envelope envelope = { .source = "/x/y", .epoch = "e", .sequence = 7 };
	struct tw_error *err = tw_envelope_check((const char *)data, size, &envelope);
	if (err) {
		tw_error_destroy(err);
		return 0;
	}
	struct seen seen = { 0 };
	yajl_handle parser = yajl_alloc(&callbacks, NULL, &seen);
	if (yajl_parse(parser, data, size) != yajl_status_ok || yajl_complete_parse(parser) != yajl_status_ok ||
		seen.ids != 1 || seen.sources != 1)
		abort();
	yajl_free(parser);
	return 0;
}
