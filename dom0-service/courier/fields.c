/* SPDX-License-Identifier: BSD-3-Clause */
#include "courier/fields.h"

#include <openssl/evp.h>
#include <stdint.h>
#include <string.h>

typedef void (*member_fn)(struct tw_fields *out, const struct tw_value *key, const struct tw_value *value);

static const char *skip_space(const char *at, const char *end)
{
	while (at < end && (*at == ' ' || *at == '\t' || *at == '\n' || *at == '\r'))
		at++;
	return at;
}

/* Behind the string that begins at at. */
static const char *skip_string(const char *at, const char *end)
{
	for (at++; at < end && *at != '"'; at++)
		if (*at == '\\')
			at++;
	return at < end ? at + 1 : end;
}

static const char *skip_value(const char *at, const char *end)
{
	int depth = 0;
	while (at < end) {
		if (*at == '"') {
			at = skip_string(at, end);
		} else if (*at == '{' || *at == '[') {
			depth++;
			at++;
		} else if (*at == '}' || *at == ']') {
			if (!depth)
				return at;
			depth--;
			at++;
		} else if (!depth && (*at == ',' || *at == ' ' || *at == '\n' || *at == '\t' || *at == '\r')) {
			return at;
		} else {
			at++;
			continue;
		}
		if (!depth)
			return at;
	}
	return end;
}

/* Tells fn of each member of the object. */
static void walk(const struct tw_value *object, member_fn fn, struct tw_fields *out)
{
	const char *end = object->at + object->len;
	const char *at = skip_space(object->at + 1, end);
	while (at < end && *at == '"') {
		struct tw_value key = { .at = at };
		at = skip_string(at, end);
		key.len = (size_t)(at - key.at);
		at = skip_space(at, end);
		at = skip_space(at < end ? at + 1 : end, end);
		struct tw_value value = { .at = at };
		at = skip_value(at, end);
		value.len = (size_t)(at - value.at);
		fn(out, &key, &value);
		at = skip_space(at, end);
		at = skip_space(at < end && *at == ',' ? at + 1 : end, end);
	}
}

static bool is(const struct tw_value *key, const char *name)
{
	size_t len = strlen(name);
	return key->len == len + 2 && memcmp(key->at + 1, name, len) == 0;
}

static void domain_member(struct tw_fields *out, const struct tw_value *key, const struct tw_value *value)
{
	if (is(key, "id"))
		out->domain_id = *value;
	else if (is(key, "name"))
		out->domain_name = *value;
	else if (is(key, "uuid"))
		out->domain_uuid = *value;
}

static void data_member(struct tw_fields *out, const struct tw_value *key, const struct tw_value *value)
{
	if (is(key, "old_path"))
		out->old_path = *value;
	else if (is(key, "path_b64"))
		out->path_b64 = *value;
	else if (is(key, "old_path_b64"))
		out->old_path_b64 = *value;
	else if (is(key, "domain") && *value->at == '{')
		walk(value, domain_member, out);
}

static void event_member(struct tw_fields *out, const struct tw_value *key, const struct tw_value *value)
{
	if (is(key, "id"))
		out->id = *value;
	else if (is(key, "source"))
		out->source = *value;
	else if (is(key, "type"))
		out->type = *value;
	else if (is(key, "subject"))
		out->subject = *value;
	else if (is(key, "time"))
		out->time = *value;
	else if (is(key, "observedtime"))
		out->observed = *value;
	else if (is(key, "data")) {
		out->data = *value;
		if (*value->at == '{')
			walk(value, data_member, out);
	}
}

void tw_fields_get(const char *body, size_t len, struct tw_fields *out)
{
	*out = (struct tw_fields){ 0 };
	const struct tw_value event = { .at = body, .len = len };
	if (len >= 2 && *body == '{')
		walk(&event, event_member, out);
}

static unsigned int hex4(const char *at)
{
	unsigned int value = 0;
	for (int i = 0; i < 4; i++) {
		unsigned char c = (unsigned char)at[i];
		value = value << 4 | (c <= '9' ? c - 48u : (c | 0x20u) - 'a' + 10) % 16;
	}
	return value;
}

static void put_utf8(uint32_t c, struct tw_buf *out)
{
	char text[4];
	size_t n = c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
	static const unsigned char lead[] = { 0, 0, 0xc0, 0xe0, 0xf0 };
	for (size_t i = n; i-- > 1; c >>= 6)
		text[i] = (char)(0x80 | (c & 0x3f));
	text[0] = (char)(lead[n] | c);
	tw_buf_append(out, text, n);
}

/* Takes the escape at at, which is a backslash; returns what follows it. */
static const char *put_escape(const char *at, const char *end, struct tw_buf *out)
{
	static const char names[] = "bfnrt";
	static const char values[] = "\b\f\n\r\t";
	if (end - at >= 6 && at[1] == 'u') {
		uint32_t c = hex4(at + 2);
		at += 6;
		if (c >= 0xd800 && c < 0xdc00 && end - at >= 6) {
			c = 0x10000 + ((c - 0xd800) << 10) + ((hex4(at + 2) - 0xdc00) & 0x3ff);
			at += 6;
		}
		put_utf8(c, out);
		return at;
	}
	const char *name = at + 1 < end ? strchr(names, at[1]) : NULL;
	if (at + 1 < end)
		tw_buf_append(out, name ? &values[name - names] : &at[1], 1);
	return at + 2;
}

void tw_value_text(const struct tw_value *value, struct tw_buf *out)
{
	if (!value->at || value->len < 2 || *value->at != '"')
		return;
	const char *at = value->at + 1;
	const char *end = value->at + value->len - 1;
	while (at < end) {
		const char *slash = memchr(at, '\\', (size_t)(end - at));
		tw_buf_append(out, at, (size_t)((slash ? slash : end) - at));
		if (!slash)
			return;
		at = put_escape(slash, end, out);
	}
}

void tw_value_base64(const struct tw_value *value, struct tw_buf *out)
{
	if (!value->at || value->len < 6 || *value->at != '"' || (value->len - 2) % 4)
		return;
	size_t len = value->len - 2;
	const unsigned char *text = (const unsigned char *)value->at + 1;
	unsigned char *at = tw_buf_reserve(out, len);
	int n = at ? EVP_DecodeBlock(at, text, (int)len) : -1;
	if (n < 0)
		return;
	out->len += (size_t)n - (text[len - 1] == '=') - (text[len - 2] == '=');
}
