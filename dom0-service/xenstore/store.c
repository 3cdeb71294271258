/* SPDX-License-Identifier: BSD-3-Clause */
#include "xenstore/store.h"
#include "base/buf.h"
#include "base/scope.h"
#include "xenstore/schema.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <xenstore.h>

/* Somebody else's transaction may be in the way; after so many times in a row he is a nuisance. */
#define MAX_TRIES 20

struct tw_store {
	struct xs_handle *xs;
	/* A second connection, over which nothing is said: libxenstore does not wake its caller when xenstored is
	 * gone. -1: by the kernel's device. */
	int sentinel;
};

static bool socket_exists(void)
{
	struct stat st;
	return stat(xs_daemon_socket(), &st) == 0;
}

/* xs_open() would fall back to the kernel's device: its calls wait for ever when nobody serves it. */
static struct tw_error *try_socket(int *out)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	const char *path = xs_daemon_socket();
	if (strlen(path) >= sizeof(addr.sun_path))
		return tw_error_create(TW_UNAVAILABLE, "%s: too long for a socket's name", path);
	strcpy(addr.sun_path, path);
	TW_AUTO_CLOSE int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return tw_error_errno(errno, "socket");
	if (connect(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0)
		return tw_error_create(TW_UNAVAILABLE, "xenstore: %s: %s (%s)", path, strerror(errno),
			errno == EACCES ? "it is for root only" : "is xenstored running?");
	*out = fd;
	fd = -1;
	return NULL;
}

struct tw_error *tw_store_open(bool need_socket, struct tw_store **out)
{
	TW_AUTO_CLOSE int sentinel = -1;
	if (need_socket || socket_exists())
		TW_TRY(try_socket(&sentinel));
	struct tw_store *store = calloc(1, sizeof(*store));
	if (!store)
		return tw_error_nomem();
	store->xs = xs_open(0);
	if (!store->xs) {
		int errnum = errno;
		free(store);
		return tw_error_create(TW_UNAVAILABLE,
			"xenstore: neither %s nor the kernel's device answers: %s (is xenstored running?)",
			xs_daemon_socket(), strerror(errnum));
	}
	store->sentinel = sentinel;
	sentinel = -1;
	*out = store;
	return NULL;
}

void tw_store_close(struct tw_store *store)
{
	if (!store)
		return;
	xs_close(store->xs);
	if (store->sentinel >= 0)
		close(store->sentinel);
	free(store);
}

int tw_store_sentinel(const struct tw_store *store)
{
	return store->sentinel;
}

/* What xenstored itself can say; anything else is the connection's. */
static struct tw_error *failed(const char *path)
{
	static const int said[] = { EACCES, EPERM, ENOSPC, E2BIG, EEXIST, ENOENT, EAGAIN, EROFS, ENOTEMPTY, EISDIR };
	int errnum = errno;
	for (size_t i = 0; i < sizeof(said) / sizeof(said[0]); i++)
		if (errnum == said[i])
			return tw_error_errno(errnum, "xenstore: %s", path);
	if (errnum == ENOMEM)
		return tw_error_nomem();
	return tw_error_create(TW_UNAVAILABLE, "xenstore: %s: %s", path, strerror(errnum));
}

/* A driver domain may not look at other domains: for it, they are not there. */
static bool is_missing(void)
{
	return errno == ENOENT || errno == EACCES;
}

struct tw_error *tw_store_read(struct tw_store *store, const char *path, char **out, size_t *len)
{
	unsigned n = 0;
	*out = xs_read(store->xs, XBT_NULL, path, &n);
	if (len)
		*len = n;
	return *out || is_missing() ? NULL : failed(path);
}

struct tw_error *tw_store_list(struct tw_store *store, const char *path, char ***out, size_t *n)
{
	unsigned count = 0;
	*out = xs_directory(store->xs, XBT_NULL, path, &count);
	*n = count;
	return *out || is_missing() ? NULL : failed(path);
}

struct tw_error *tw_store_permissions(struct tw_store *store, const char *path, char **out)
{
	static const char letters[] = { 'n', 'r', 'w', 'b' };
	unsigned n;
	TW_AUTO_FREE struct xs_permissions *perms = xs_get_permissions(store->xs, XBT_NULL, path, &n);
	*out = NULL;
	if (!perms)
		return is_missing() ? NULL : failed(path);
	struct tw_buf text = TW_BUF_INIT;
	for (unsigned i = 0; i < n; i++)
		tw_buf_printf(&text, "%s%c%u", i ? "," : "",
			letters[perms[i].perms & (XS_PERM_READ | XS_PERM_WRITE)], perms[i].id);
	tw_buf_append(&text, "", 1);
	*out = text.data;
	return text.failed ? tw_error_nomem() : NULL;
}

struct tw_error *tw_store_self(struct tw_store *store, unsigned *out)
{
	char path[TW_XS_PATH_MAX];
	TW_AUTO_FREE char *text = NULL;
	size_t len = 0;
	tw_xs_path(TW_XS_SELF, &(struct tw_xs_ids){ 0 }, path);
	TW_TRY(tw_store_read(store, path, &text, &len));
	if (text && !tw_xs_fits(TW_XS_SELF, text, len))
		return tw_error_create(TW_BAD_DATA, "xenstore: %s is \"%s\", expected a number", path, text);
	*out = text ? (unsigned)strtoul(text, NULL, 10) : 0;
	return NULL;
}

/* --- writing --- */

static bool exists(struct tw_store *store, xs_transaction_t tx, const char *path)
{
	unsigned n;
	TW_AUTO_FREE void *value = xs_read(store->xs, tx, path, &n);
	return value != NULL;
}

/* What is made in a directory gets the directory's permissions. */
static bool make_private(struct tw_store *store, xs_transaction_t tx, const char *dir, unsigned owner)
{
	struct xs_permissions perms = { .id = owner, .perms = XS_PERM_NONE };
	return exists(store, tx, dir) ||
	       (errno == ENOENT && xs_mkdir(store->xs, tx, dir) &&
		       xs_set_permissions(store->xs, tx, dir, &perms, 1));
}

static bool put_value(
	struct tw_store *store, xs_transaction_t tx, const char *dir, const struct tw_store_value *value)
{
	char path[XENSTORE_ABS_PATH_MAX + 1];
	if (snprintf(path, sizeof(path), "%s/%s", dir, value->name) >= (int)sizeof(path)) {
		errno = E2BIG;
		return false;
	}
	if (value->value)
		return xs_write(store->xs, tx, path, value->value, (unsigned)strlen(value->value));
	return xs_rm(store->xs, tx, path) || errno == ENOENT;
}

/* One transaction up to its end; false with errno set. */
static bool put_values(struct tw_store *store, xs_transaction_t tx, const char *dir, unsigned owner,
	const struct tw_store_value *values, size_t n)
{
	if (!make_private(store, tx, dir, owner))
		return false;
	for (size_t i = 0; i < n; i++)
		if (!put_value(store, tx, dir, &values[i]))
			return false;
	return true;
}

struct tw_error *tw_store_write_dir(struct tw_store *store, const char *parent, const char *dir, unsigned owner,
	const struct tw_store_value *values, size_t n, bool *written)
{
	if (written)
		*written = false;
	for (int tries = 0; tries < MAX_TRIES; tries++) {
		xs_transaction_t tx = xs_transaction_start(store->xs);
		if (tx == XBT_NULL)
			return failed(dir);
		bool gone = parent && !exists(store, tx, parent);
		bool good = gone ? errno == ENOENT : put_values(store, tx, dir, owner, values, n);
		int errnum = errno;
		bool ended = xs_transaction_end(store->xs, tx, gone || !good);
		if (good && ended) {
			if (written)
				*written = !gone;
			return NULL;
		}
		if (!good)
			errno = errnum;
		if (errno != EAGAIN)
			return failed(dir);
	}
	return tw_error_errno(EAGAIN, "xenstore: %s", dir);
}

struct tw_error *tw_store_remove(struct tw_store *store, const char *path)
{
	return xs_rm(store->xs, XBT_NULL, path) || errno == ENOENT ? NULL : failed(path);
}

/* --- watches --- */

struct tw_error *tw_store_watch(struct tw_store *store, const char *path)
{
	return xs_watch(store->xs, path, "tapwire") ? NULL : failed(path);
}

int tw_store_fd(struct tw_store *store)
{
	return xs_fileno(store->xs);
}

struct tw_error *tw_store_event(struct tw_store *store, char **out)
{
	TW_AUTO_FREE char **event = xs_check_watch(store->xs);
	*out = NULL;
	if (!event)
		return errno == EAGAIN ? NULL : failed("watch");
	*out = strdup(event[XS_WATCH_PATH]);
	return *out ? NULL : tw_error_nomem();
}
