/* SPDX-License-Identifier: BSD-3-Clause */
#include "xenstore/schema.h"

#include <ctype.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct about {
	const char *path;
	const char *type;
	bool ours;
	bool needed;
};

#define ABOUT(id, path, type, ours, needed, perms) { path, type, ours, needed },
static const struct about keys[] = { TW_XENSTORE_KEYS(ABOUT) };
#undef ABOUT

/* tapwired sets the same permissions everywhere, and check.c expects them: it owns the node, and no other
 * domain has any right. */
#define OWNER_ONLY(id, path, type, ours, needed, perms)                                                \
	_Static_assert(!(ours) || sizeof(perms) == sizeof("n{self}"), "perms of " path);
TW_XENSTORE_KEYS(OWNER_ONLY)
#undef OWNER_ONLY

const char *const tw_xs_kinds[] = { "vbd", "vbd3", "qdisk", NULL };

/* A domain that is not dom0 may write to one place of its home only. */
static const char *where(const struct tw_xs_ids *ids)
{
	return ids->self == 0 ? "tapwire" : "data/tapwire";
}

void tw_xs_path(enum tw_xs_key key, const struct tw_xs_ids *ids, char out[TW_XS_PATH_MAX])
{
	size_t n = 0;
	for (const char *at = keys[key].path; *at && n < TW_XS_PATH_MAX - 1;) {
		size_t room = TW_XS_PATH_MAX - n;
		int put = 0;
		if (*at != '{')
			put = snprintf(out + n, room, "%.*s", (int)strcspn(at, "{"), at);
		else if (at[1] == 's')
			put = snprintf(out + n, room, "%u", ids->self);
		else if (at[1] == 'k')
			put = snprintf(out + n, room, "%s", ids->kind);
		else if (at[1] == 'u')
			put = snprintf(out + n, room, "%s", ids->uuid);
		else if (at[1] == 'w')
			put = snprintf(out + n, room, "%s", where(ids));
		else
			put = snprintf(out + n, room, "%u", at[2] == 'o' ? ids->domid : ids->devid);
		n += (size_t)put;
		at += *at == '{' ? strcspn(at, "}") + 1 : strcspn(at, "{");
	}
	if (n == 0)
		*out = '\0';
}

bool tw_xs_read_uuid(const char *text, char out[TW_XS_UUID_MAX])
{
	for (int i = 0; i < TW_XS_UUID_MAX - 1; i++) {
		bool dash = i == 8 || i == 13 || i == 18 || i == 23;
		if (dash ? text[i] != '-' : !isxdigit((unsigned char)text[i]))
			return false;
		out[i] = (char)tolower((unsigned char)text[i]);
	}
	out[TW_XS_UUID_MAX - 1] = '\0';
	return true;
}

/* Digits without a sign, blanks or more of them than needed: xenstore's paths are text. */
static bool read_number(const char *text, size_t len, unsigned long max, unsigned *out)
{
	char digits[11] = "";
	if (!len || len >= sizeof(digits) || (len > 1 && *text == '0'))
		return false;
	memcpy(digits, text, len);
	if (strspn(digits, "0123456789") != len)
		return false;
	unsigned long n = strtoul(digits, NULL, 10);
	*out = (unsigned)n;
	return n <= max;
}

static bool read_kind(const char *text, size_t len, char out[TW_XS_KIND_MAX])
{
	for (const char *const *kind = tw_xs_kinds; *kind; kind++) {
		if (strlen(*kind) != len || strncmp(*kind, text, len) != 0)
			continue;
		strcpy(out, *kind);
		return true;
	}
	return false;
}

/* One part of a path against what stands in braces. */
static bool read_part(const char *name, const char *text, size_t len, struct tw_xs_ids *ids)
{
	unsigned number;
	switch (name[1]) {
	case 's':
		return read_number(text, len, TW_XS_DOMID_END - 1, &number) && number == ids->self;
	case 'w':
		return strlen(where(ids)) == len && strncmp(where(ids), text, len) == 0;
	case 'k':
		return read_kind(text, len, ids->kind);
	case 'u':
		return len == TW_XS_UUID_MAX - 1 && tw_xs_read_uuid(text, ids->uuid);
	default:
		if (name[2] == 'o')
			return read_number(text, len, TW_XS_DOMID_END - 1, &ids->domid);
		return read_number(text, len, UINT32_MAX, &ids->devid);
	}
}

bool tw_xs_below(enum tw_xs_key key, const char *path, struct tw_xs_ids *ids)
{
	const char *at = keys[key].path;
	while (*at) {
		size_t want = strcspn(at, "/");
		size_t have = strcspn(path, "/");
		if (strncmp(at, "{where}", want) == 0 && strncmp(path, "data/", 5) == 0)
			have += 1 + strcspn(path + 5, "/");
		if (*at == '{' ? !read_part(at, path, have, ids)
			       : want != have || strncmp(at, path, want) != 0)
			return false;
		at += want;
		path += have;
		if (*at && *path++ != *at++)
			return false;
	}
	return !*path || *path == '/';
}

/* --- values --- */

static bool is_one_of(const char *list, const char *value, size_t len)
{
	for (;;) {
		size_t n = strcspn(list, "|");
		if (n == len && strncmp(list, value, len) == 0)
			return true;
		if (!list[n])
			return false;
		list += n + 1;
	}
}

static bool is_printable(const char *value, size_t len, int first)
{
	for (size_t i = 0; i < len; i++)
		if ((unsigned char)value[i] < first || value[i] == 0x7f)
			return false;
	return len > 0;
}

static bool is_number(const char *value, size_t len)
{
	return len > 0 && len <= 20 && strspn(value, "0123456789") >= len;
}

bool tw_xs_read_vm(const char *value, char out[TW_XS_UUID_MAX])
{
	/* xend added a number, "-1", with each reboot. */
	return strncmp(value, "/vm/", 4) == 0 && tw_xs_read_uuid(value + 4, out);
}

bool tw_xs_fits(enum tw_xs_key key, const char *value, size_t len)
{
	const char *type = keys[key].type;
	char uuid[TW_XS_UUID_MAX];
	if (strcmp(type, "directory") == 0)
		return true;
	if (memchr(value, '\0', len))
		return false;
	if (strcmp(type, "number") == 0)
		return is_number(value, len);
	if (strcmp(type, "text") == 0)
		return is_printable(value, len, ' ');
	if (strcmp(type, "word") == 0)
		return is_printable(value, len, '!');
	if (strcmp(type, "path") == 0)
		return *value == '/' && is_printable(value, len, ' ');
	if (strcmp(type, "uuid-path") == 0)
		return tw_xs_read_vm(value, uuid);
	return is_one_of(type, value, len);
}

/* --- questions --- */

bool tw_xs_ours(enum tw_xs_key key)
{
	return keys[key].ours;
}

bool tw_xs_needed(enum tw_xs_key key)
{
	return keys[key].needed;
}

const char *tw_xs_type(enum tw_xs_key key)
{
	return keys[key].type;
}

const char *tw_xs_name(enum tw_xs_key key)
{
	const char *slash = strrchr(keys[key].path, '/');
	return slash ? slash + 1 : keys[key].path;
}

bool tw_xs_is_child(enum tw_xs_key child, enum tw_xs_key dir)
{
	size_t len = strlen(keys[dir].path);
	const char *path = keys[child].path;
	return strncmp(path, keys[dir].path, len) == 0 && path[len] == '/' && !strchr(path + len + 1, '/');
}
