/* SPDX-License-Identifier: BSD-3-Clause */
#include "domains/guest.h"
#include "base/scope.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

struct reader {
	struct tw_store *store;
	struct tw_xs_ids ids;
	struct tw_guest *guest;
};

/* What stands in xenstore goes to logs and terminals. */
static void make_printable(char *text)
{
	for (; *text; text++)
		if ((unsigned char)*text < ' ' || *text == 0x7f)
			*text = '?';
}

/* The first problem counts. */
static struct tw_error *set_problem(char **problem, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

static struct tw_error *set_problem(char **problem, const char *fmt, ...)
{
	if (*problem)
		return NULL;
	va_list args;
	va_start(args, fmt);
	int n = vasprintf(problem, fmt, args);
	va_end(args);
	if (n < 0) {
		*problem = NULL;
		return tw_error_nomem();
	}
	make_printable(*problem);
	return NULL;
}

/* --- images --- */

static bool is_raw_type(const char *type, size_t len)
{
	static const char *const raw[] = { "aio", "raw", "file", "phy", "tap:aio" };
	for (size_t i = 0; i < sizeof(raw) / sizeof(raw[0]); i++)
		if (strlen(raw[i]) == len && strncmp(raw[i], type, len) == 0)
			return true;
	return false;
}

struct tw_error *tw_guest_image(const char *params, char **image, char **problem)
{
	const char *slash = strchr(params, '/');
	size_t type = slash ? (size_t)(slash - params) : strlen(params);
	*image = *problem = NULL;
	if (type && (!slash || params[type - 1] != ':'))
		return set_problem(problem, "the target \"%s\" has no absolute path", params);
	if (type && !is_raw_type(params, type - 1))
		return set_problem(problem, "the target \"%s\" is of type \"%.*s\", and only raw images are followed",
			params, (int)type - 1, params);
	*image = strdup(slash);
	return *image ? NULL : tw_error_nomem();
}

/* Another name of the same file is the same image. A file system that hangs keeps this thread, no other. */
static void identify(struct tw_guest_disk *disk)
{
	struct stat st;
	disk->found = disk->image && stat(disk->image, &st) == 0;
	if (!disk->found)
		return;
	disk->device = S_ISBLK(st.st_mode) ? 0 : st.st_dev;
	disk->inode = S_ISBLK(st.st_mode) ? st.st_rdev : st.st_ino;
}

/* --- keys --- */

/* *out is NULL when the key is missing or not of its type, which then is the disk's problem if it is needed. */
static struct tw_error *read_key(struct reader *r, enum tw_xs_key key, char **out, char **problem)
{
	char path[TW_XS_PATH_MAX];
	TW_AUTO_FREE char *value = NULL;
	size_t len = 0;
	tw_xs_path(key, &r->ids, path);
	TW_TRY(tw_store_read(r->store, path, &value, &len));
	*out = NULL;
	if (value && tw_xs_fits(key, value, len)) {
		*out = TW_STEAL(value);
		return NULL;
	}
	if (!tw_xs_needed(key) && !value)
		return NULL;
	if (!value)
		return set_problem(problem, "xenstore has no key %s", tw_xs_name(key));
	return set_problem(problem, "the key %s is \"%s\", expected %s", tw_xs_name(key), value, tw_xs_type(key));
}

static struct tw_error *or_empty(char **text)
{
	if (!*text)
		*text = strdup("");
	return *text ? NULL : tw_error_nomem();
}

static bool good_vdev(const char *vdev)
{
	return strlen(vdev) <= 32 &&
	       strspn(vdev, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-") == strlen(vdev);
}

static struct tw_error *read_vdev(struct reader *r, struct tw_guest_disk *disk)
{
	TW_TRY(read_key(r, TW_XS_DISK_VDEV, &disk->vdev, &disk->problem));
	if (disk->vdev && !good_vdev(disk->vdev)) { /* it becomes a part of file names */
		TW_TRY(set_problem(&disk->problem, "the key dev is \"%s\", expected a device's name", disk->vdev));
		*disk->vdev = '\0';
	}
	return or_empty(&disk->vdev);
}

/* What is of another type is as good as missing. */
static struct tw_error *read_optional(struct reader *r, enum tw_xs_key key, char **out)
{
	char *problem = NULL;
	struct tw_error *err = read_key(r, key, out, &problem);
	free(problem);
	return err ? err : or_empty(out);
}

static struct tw_error *read_script(struct reader *r, struct tw_guest_disk *disk)
{
	TW_TRY(read_optional(r, TW_XS_DISK_SCRIPT, &disk->script));
	const char *slash = strrchr(disk->script, '/');
	if (slash)
		memmove(disk->script, slash + 1, strlen(slash + 1) + 1);
	return NULL;
}

static struct tw_error *read_served(struct reader *r, struct tw_guest_disk *disk)
{
	TW_TRY(read_optional(r, TW_XS_DISK_TAPDISK, &disk->served));
	disk->by_tapdisk = *disk->served;
	if (disk->by_tapdisk)
		return NULL;
	free(TW_STEAL(disk->served));
	return read_optional(r, TW_XS_DISK_DEVICE, &disk->served);
}

static struct tw_error *read_disk(struct reader *r, struct tw_guest_disk *disk)
{
	TW_AUTO_FREE char *mode = NULL;
	TW_AUTO_FREE char *type = NULL;
	memcpy(disk->kind, r->ids.kind, sizeof(disk->kind));
	disk->devid = r->ids.devid;
	TW_TRY(read_vdev(r, disk));
	TW_TRY(read_key(r, TW_XS_DISK_MODE, &mode, &disk->problem));
	TW_TRY(read_key(r, TW_XS_DISK_DEVICE_TYPE, &type, &disk->problem));
	TW_TRY(read_key(r, TW_XS_DISK_PARAMS, &disk->params, &disk->problem));
	TW_TRY(read_script(r, disk));
	TW_TRY(read_served(r, disk));
	TW_TRY(read_optional(r, TW_XS_DISK_NUMBERS, &disk->numbers));
	disk->read_only = mode && *mode == 'r';
	disk->cdrom = type && strcmp(type, "cdrom") == 0;
	if (disk->params) {
		TW_AUTO_FREE char *problem = NULL;
		TW_TRY(tw_guest_image(disk->params, &disk->image, &problem));
		if (problem)
			TW_TRY(set_problem(&disk->problem, "%s", problem));
	}
	identify(disk);
	return or_empty(&disk->params);
}

static struct tw_error *is_there(struct reader *r, enum tw_xs_key key, bool *there)
{
	char path[TW_XS_PATH_MAX];
	TW_AUTO_FREE char *value = NULL;
	tw_xs_path(key, &r->ids, path);
	TW_TRY(tw_store_read(r->store, path, &value, NULL));
	*there = value != NULL;
	return NULL;
}

static void free_disk(struct tw_guest_disk *disk)
{
	free(disk->vdev);
	free(disk->params);
	free(disk->script);
	free(disk->served);
	free(disk->numbers);
	free(disk->image);
	free(disk->problem);
}

/* The last one. If it went while its keys were read, it is no disk whose keys are missing. */
static struct tw_error *drop_if_gone(struct reader *r)
{
	struct tw_guest *guest = r->guest;
	bool there = true;
	if (guest->disks[guest->ndisks - 1].problem)
		TW_TRY(is_there(r, TW_XS_DISK, &there));
	if (!there)
		free_disk(&guest->disks[--guest->ndisks]);
	return NULL;
}

/* The disks of one kind. */
static struct tw_error *read_disks(struct reader *r)
{
	char path[TW_XS_PATH_MAX];
	TW_AUTO_FREE char **names = NULL;
	size_t n = 0;
	tw_xs_path(TW_XS_GUEST_DISKS, &r->ids, path);
	TW_TRY(tw_store_list(r->store, path, &names, &n));
	for (size_t i = 0; i < n; i++) {
		char below[TW_XS_PATH_MAX];
		if (snprintf(below, sizeof(below), "%s/%s", path, names[i]) >= (int)sizeof(below) ||
			!tw_xs_below(TW_XS_DISK, below, &r->ids))
			continue;
		struct tw_guest *guest = r->guest;
		struct tw_guest_disk *grown =
			reallocarray(guest->disks, guest->ndisks + 1, sizeof(*guest->disks));
		if (!grown)
			return tw_error_nomem();
		guest->disks = grown;
		memset(&grown[guest->ndisks], 0, sizeof(*grown));
		TW_TRY(read_disk(r, &grown[guest->ndisks++]));
		TW_TRY(drop_if_gone(r));
	}
	return NULL;
}

static struct tw_error *read_name(struct reader *r)
{
	char *problem = NULL;
	TW_AUTO_FREE char *vm = NULL;
	struct tw_guest *guest = r->guest;
	TW_TRY(read_key(r, TW_XS_GUEST_VM, &vm, &problem));
	free(TW_STEAL(problem));
	guest->named = vm && tw_xs_read_vm(vm, guest->uuid);
	TW_TRY(read_key(r, TW_XS_GUEST_NAME, &guest->name, &problem));
	free(problem);
	return or_empty(&guest->name);
}

/* In dom0 a guest without a home is none; a driver domain cannot tell. */
static struct tw_error *check_home(struct reader *r, bool *there)
{
	*there = true;
	return r->ids.self == 0 ? is_there(r, TW_XS_GUEST, there) : NULL;
}

static struct tw_error *read_guest(struct reader *r, bool *there)
{
	TW_TRY(check_home(r, there));
	if (!*there)
		return NULL;
	for (const char *const *kind = tw_xs_kinds; *kind; kind++) {
		strcpy(r->ids.kind, *kind);
		TW_TRY(read_disks(r));
	}
	if (!r->guest->ndisks)
		return NULL;
	TW_TRY(read_name(r));
	/* It may have gone meanwhile, and then it has no other name now. */
	return check_home(r, there);
}

struct tw_error *tw_guest_read(struct tw_store *store, unsigned self, unsigned domid, struct tw_guest **out)
{
	struct tw_guest *guest = calloc(1, sizeof(*guest));
	struct reader r = { .store = store, .guest = guest };
	if (!guest)
		return tw_error_nomem();
	r.ids.self = self;
	r.ids.domid = guest->domid = domid;
	bool there = false;
	struct tw_error *err = read_guest(&r, &there);
	*out = err || !there || !guest->ndisks ? NULL : guest;
	if (!*out)
		tw_guest_free(guest);
	return err;
}

void tw_guest_free(struct tw_guest *guest)
{
	if (!guest)
		return;
	for (size_t i = 0; i < guest->ndisks; i++)
		free_disk(&guest->disks[i]);
	free(guest->disks);
	free(guest->name);
	free(guest);
}

/* --- lists --- */

static int compare(const void *a, const void *b)
{
	unsigned x = *(const unsigned *)a, y = *(const unsigned *)b;
	return (x > y) - (x < y);
}

static struct tw_error *add_listed(struct tw_store *store, struct tw_xs_ids *ids, unsigned **out, size_t *n)
{
	char path[TW_XS_PATH_MAX];
	TW_AUTO_FREE char **names = NULL;
	size_t count = 0;
	tw_xs_path(TW_XS_BACKENDS, ids, path);
	TW_TRY(tw_store_list(store, path, &names, &count));
	unsigned *grown = reallocarray(*out, *n + count + 1, sizeof(**out));
	if (!grown)
		return tw_error_nomem();
	*out = grown;
	for (size_t i = 0; i < count; i++) {
		char below[TW_XS_PATH_MAX];
		if (snprintf(below, sizeof(below), "%s/%s", path, names[i]) < (int)sizeof(below) &&
			tw_xs_below(TW_XS_GUEST_DISKS, below, ids))
			grown[(*n)++] = ids->domid;
	}
	return NULL;
}

struct tw_error *tw_guest_list(struct tw_store *store, unsigned self, unsigned **out, size_t *n)
{
	struct tw_xs_ids ids = { .self = self };
	TW_AUTO_FREE unsigned *all = NULL;
	size_t count = 0;
	for (const char *const *kind = tw_xs_kinds; *kind; kind++) {
		strcpy(ids.kind, *kind);
		TW_TRY(add_listed(store, &ids, &all, &count));
	}
	qsort(all, count, sizeof(*all), compare);
	*n = 0;
	for (size_t i = 0; i < count; i++)
		if (!*n || all[*n - 1] != all[i])
			all[(*n)++] = all[i];
	*out = TW_STEAL(all);
	return NULL;
}
