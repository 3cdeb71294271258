/* SPDX-License-Identifier: BSD-3-Clause */
#include "event/json.h"
#include "event/utf8.h"
#include "base/scope.h"

#include <inttypes.h>
#include <limits.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <string.h>
#include <yajl/yajl_parse.h>

static void append(void *ctx, const char *text, size_t len)
{
	tw_buf_append(ctx, text, len);
}

void tw_json_begin(struct tw_json *json, struct tw_buf *out)
{
	*json = (struct tw_json){
		.gen = yajl_gen_alloc(NULL),
		.out = out,
		.start = out->len,
	};
	json->failed =
		!json->gen || !yajl_gen_config(json->gen, yajl_gen_print_callback, append, out);
}

struct tw_error *tw_json_end(struct tw_json *json)
{
	if (json->gen)
		yajl_gen_free(json->gen);
	json->gen = NULL;
	if (!json->failed && !json->out->failed)
		return NULL;
	json->out->len = json->start;
	return tw_error_nomem();
}

static void check(struct tw_json *json, yajl_gen_status status)
{
	if (status != yajl_gen_status_ok)
		json->failed = true;
}

static void string(struct tw_json *json, const void *data, size_t len)
{
	if (!json->failed)
		check(json, yajl_gen_string(json->gen, data, len));
}

static void put_key(struct tw_json *json, const char *key)
{
	if (key)
		string(json, key, strlen(key));
}

void tw_json_open(struct tw_json *json, const char *key)
{
	put_key(json, key);
	if (!json->failed)
		check(json, yajl_gen_map_open(json->gen));
}

void tw_json_close(struct tw_json *json)
{
	if (!json->failed)
		check(json, yajl_gen_map_close(json->gen));
}

void tw_json_open_array(struct tw_json *json, const char *key)
{
	put_key(json, key);
	if (!json->failed)
		check(json, yajl_gen_array_open(json->gen));
}

void tw_json_close_array(struct tw_json *json)
{
	if (!json->failed)
		check(json, yajl_gen_array_close(json->gen));
}

void tw_json_u64(struct tw_json *json, const char *key, uint64_t value)
{
	/* yajl_gen_integer is signed: a size may have all 64 bits. */
	char text[20], *at = text + sizeof(text);
	do
		*--at = (char)('0' + value % 10);
	while (value /= 10);
	put_key(json, key);
	if (!json->failed)
		check(json, yajl_gen_number(json->gen, at, (size_t)(text + sizeof(text) - at)));
}

void tw_json_bool(struct tw_json *json, const char *key, bool value)
{
	put_key(json, key);
	if (!json->failed)
		check(json, yajl_gen_bool(json->gen, value));
}

static void repaired(struct tw_json *json, struct tw_bytes value)
{
	struct tw_buf text = TW_BUF_INIT;
	tw_utf8_repair(value.data, value.len, &text);
	if (text.failed)
		json->failed = true;
	else
		string(json, text.data, text.len);
	tw_buf_deinit(&text);
}

void tw_json_readable(struct tw_json *json, const char *key, struct tw_bytes value)
{
	put_key(json, key);
	if (tw_utf8_valid(value.data, value.len))
		string(json, value.data, value.len);
	else
		repaired(json, value);
}

void tw_json_text(struct tw_json *json, const char *key, const char *value)
{
	tw_json_readable(json, key, (struct tw_bytes){ value, strlen(value) });
}

void tw_json_bytes(struct tw_json *json, const char *key, struct tw_bytes value)
{
	tw_json_readable(json, key, value);
	tw_json_raw_bytes(json, key, value);
}

void tw_json_raw_bytes(struct tw_json *json, const char *key, struct tw_bytes value)
{
	if (tw_utf8_valid(value.data, value.len))
		return;
	char name[64];
	snprintf(name, sizeof(name), "%s_b64", key);
	TW_AUTO_FREE char *text = NULL;
	if (value.len <= INT_MAX / 2)
		text = malloc(value.len / 3 * 4 + 5);
	if (!text) {
		json->failed = true;
		return;
	}
	int len = EVP_EncodeBlock((unsigned char *)text, value.data, (int)value.len);
	put_key(json, name);
	string(json, text, (size_t)len);
}

void tw_json_time(struct tw_json *json, const char *key, struct tw_time value)
{
	char text[TW_TIME_TEXT_BYTES];
	tw_time_format(value, text);
	put_key(json, key);
	string(json, text, strlen(text));
}

static bool is_json(const char *text, size_t len)
{
	yajl_handle parser = yajl_alloc(NULL, NULL, NULL);
	if (!parser)
		return false;
	bool ok = yajl_parse(parser, (const unsigned char *)text, len) == yajl_status_ok &&
		  yajl_complete_parse(parser) == yajl_status_ok;
	yajl_free(parser);
	return ok;
}

void tw_json_raw(struct tw_json *json, const char *key, const char *text, size_t len)
{
	put_key(json, key);
	if (json->failed)
		return;
	TW_AUTO_FREE char *line = len && is_json(text, len) ? strndup(text, len) : NULL;
	if (!line) {
		check(json, yajl_gen_null(json->gen));
		return;
	}
	/* Within JSON's strings a line end is always escaped: a bare one is white space. */
	for (char *c = line; *c; c++)
		if (*c == '\n' || *c == '\r')
			*c = ' ';
	/* yajl writes a number's text as it is; that makes it the way to put in any text. */
	check(json, yajl_gen_number(json->gen, line, strlen(line)));
}
