/* SPDX-License-Identifier: BSD-3-Clause */
#include "xenstore/check.h"
#include "base/buf.h"
#include "base/scope.h"
#include "xenstore/schema.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct check {
	struct tw_store *store;
	tw_check_report_fn report;
	void *arg;
	struct tw_xs_ids ids;
	struct tw_check_result *result;
};

static void complain(struct check *c, const char *path, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

static void complain(struct check *c, const char *path, const char *fmt, ...)
{
	char text[512];
	va_list args;
	va_start(args, fmt);
	vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	c->result->wrong++;
	c->report(c->arg, path, text);
}

static struct tw_error *check_permissions(struct check *c, const char *path)
{
	char expected[16];
	TW_AUTO_FREE char *perms = NULL;
	TW_TRY(tw_store_permissions(c->store, path, &perms));
	snprintf(expected, sizeof(expected), "n%u", c->ids.self);
	if (perms && strcmp(perms, expected) != 0)
		complain(c, path, "permissions are %s, expected %s", perms, expected);
	return NULL;
}

/* *there: whether it exists. */
static struct tw_error *check_key(struct check *c, enum tw_xs_key key, bool *there)
{
	char path[TW_XS_PATH_MAX];
	TW_AUTO_FREE char *value = NULL;
	size_t len = 0;
	tw_xs_path(key, &c->ids, path);
	TW_TRY(tw_store_read(c->store, path, &value, &len));
	*there = value != NULL;
	if (!value) {
		if (tw_xs_needed(key))
			complain(c, path, "is missing");
		return NULL;
	}
	c->result->keys++;
	if (!tw_xs_fits(key, value, len))
		complain(c, path, "is \"%s\", expected %s", value, tw_xs_type(key));
	return tw_xs_ours(key) ? check_permissions(c, path) : NULL;
}

/* In our own directories there is nothing but what the schema knows. */
static struct tw_error *check_unknown(struct check *c, enum tw_xs_key dir)
{
	char path[TW_XS_PATH_MAX];
	TW_AUTO_FREE char **names = NULL;
	size_t n = 0;
	tw_xs_path(dir, &c->ids, path);
	TW_TRY(tw_store_list(c->store, path, &names, &n));
	for (size_t i = 0; i < n; i++) {
		bool known = false;
		for (int key = 0; key < TW_XS_END; key++)
			known |= tw_xs_is_child((enum tw_xs_key)key, dir) &&
				 strcmp(tw_xs_name((enum tw_xs_key)key), names[i]) == 0;
		if (!known)
			complain(c, path, "has \"%s\", which the schema does not know", names[i]);
	}
	return NULL;
}

static struct tw_error *check_dir(struct check *c, enum tw_xs_key dir)
{
	for (int i = 0; i < TW_XS_END; i++) {
		enum tw_xs_key key = (enum tw_xs_key)i;
		bool there;
		if (!tw_xs_is_child(key, dir))
			continue;
		TW_TRY(check_key(c, key, &there));
		if (there && key == TW_XS_DISK_OURS) {
			c->result->ours++;
			TW_TRY(check_dir(c, key));
		}
	}
	return tw_xs_ours(dir) ? check_unknown(c, dir) : NULL;
}

typedef struct tw_error *(*each_fn)(struct check *c, enum tw_xs_key key);

/* The directories below a path that the schema has a pattern for, here: numbers. */
static struct tw_error *each_below(struct check *c, enum tw_xs_key above, enum tw_xs_key key, each_fn each)
{
	char path[TW_XS_PATH_MAX];
	TW_AUTO_FREE char **names = NULL;
	size_t n = 0;
	tw_xs_path(above, &c->ids, path);
	TW_TRY(tw_store_list(c->store, path, &names, &n));
	for (size_t i = 0; i < n; i++) {
		char below[TW_XS_PATH_MAX];
		if (snprintf(below, sizeof(below), "%s/%s", path, names[i]) >= (int)sizeof(below) ||
			!tw_xs_below(key, below, &c->ids)) {
			complain(c, path, "has \"%s\", expected a number", names[i]);
			continue;
		}
		TW_TRY(each(c, key));
	}
	return NULL;
}

static struct tw_error *check_disk(struct check *c, enum tw_xs_key key)
{
	c->result->disks++;
	return check_dir(c, key);
}

static struct tw_error *check_guest(struct check *c, enum tw_xs_key key)
{
	bool there;
	TW_TRY(check_key(c, TW_XS_GUEST_VM, &there));
	TW_TRY(check_key(c, TW_XS_GUEST_NAME, &there));
	return each_below(c, key, TW_XS_DISK, check_disk);
}

struct tw_error *tw_xenstore_check(
	struct tw_store *store, tw_check_report_fn report, void *arg, struct tw_check_result *out)
{
	struct check c = { .store = store, .report = report, .arg = arg, .result = out };
	bool there;
	memset(out, 0, sizeof(*out));
	TW_TRY(tw_store_self(store, &c.ids.self));
	TW_TRY(check_key(&c, TW_XS_SERVICE, &there));
	if (there)
		TW_TRY(check_dir(&c, TW_XS_SERVICE));
	for (const char *const *kind = tw_xs_kinds; *kind; kind++) {
		strcpy(c.ids.kind, *kind);
		TW_TRY(each_below(&c, TW_XS_BACKENDS, TW_XS_GUEST_DISKS, check_guest));
	}
	return NULL;
}
