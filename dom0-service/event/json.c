/* SPDX-License-Identifier: BSD-3-Clause */
#include "event/json.h"

#include <yajl/yajl_parse.h>

void tw_json_begin(struct tw_json *json, struct tw_buf *out)
{
	*json = (struct tw_json){.start = out->len};
	tw_put_begin(&json->put, out);
}

struct tw_error *tw_json_end(struct tw_json *json)
{
	tw_put_end(&json->put);
	if (!json->put.buf->failed)
		return NULL;
	json->put.buf->len = json->start;
	return tw_error_nomem();
}

/* What stands before a value. */
static void put_key(struct tw_json *json, const char *key)
{
	if (json->comma)
		tw_put_literal(&json->put, ",");
	json->comma = true;
	if (!key)
		return;
	tw_put_string(&json->put, key, strlen(key));
	tw_put_literal(&json->put, ":");
}

void tw_json_open(struct tw_json *json, const char *key)
{
	put_key(json, key);
	tw_put_literal(&json->put, "{");
	json->comma = false;
}

void tw_json_close(struct tw_json *json)
{
	tw_put_literal(&json->put, "}");
	json->comma = true;
}

void tw_json_open_array(struct tw_json *json, const char *key)
{
	put_key(json, key);
	tw_put_literal(&json->put, "[");
	json->comma = false;
}

void tw_json_close_array(struct tw_json *json)
{
	tw_put_literal(&json->put, "]");
	json->comma = true;
}

void tw_json_u64(struct tw_json *json, const char *key, uint64_t value)
{
	put_key(json, key);
	tw_put_u64(&json->put, value);
}

void tw_json_bool(struct tw_json *json, const char *key, bool value)
{
	put_key(json, key);
	tw_put_literal(&json->put, value ? "true" : "false");
}

void tw_json_text(struct tw_json *json, const char *key, const char *value)
{
	put_key(json, key);
	tw_put_string(&json->put, value, strlen(value));
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
	if (!len || !is_json(text, len)) {
		tw_put_literal(&json->put, "null");
		return;
	}
	if (!tw_put_room(&json->put, len))
		return;
	/* Within JSON's strings a line end is always escaped: a bare one is white space. */
	for (size_t i = 0; i < len; i++)
		*json->put.at++ = (char)(text[i] == '\n' || text[i] == '\r' ? ' ' : text[i]);
}
