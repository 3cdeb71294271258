/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A connection to xenstored, over libxenstore; this folder is the only one that knows it. Calls block until
 * xenstored answers: the service makes them from a thread of their own, one at a time. tw_store_fd() and
 * tw_store_event() may be called from another thread meanwhile.
 *
 * Errors: TW_UNAVAILABLE when the connection is lost (close it and open another one), TW_IO with xenstored's own
 * errno for the rest.
 */
#ifndef TW_XENSTORE_STORE_H
#define TW_XENSTORE_STORE_H

#include "base/error.h"
#include <stdbool.h>
#include <stddef.h>

struct tw_store;

/* Connects. TW_UNAVAILABLE: no xenstored answers here. need_socket: not by the kernel's device, which waits for
 * a xenstored that is gone. */
struct tw_error *tw_store_open(bool need_socket, struct tw_store **out) TW_MUST_CHECK;
void tw_store_close(struct tw_store *store);
/* Readable when xenstored has gone; -1 when the connection is the kernel's (in a driver domain), not a socket. */
int tw_store_sentinel(const struct tw_store *store);

/* The number of the domain that this process runs in. */
struct tw_error *tw_store_self(struct tw_store *store, unsigned *out) TW_MUST_CHECK;

/* The value of a key with a NUL behind it; the caller frees. *out is NULL when there is no such key, or none that
 * this domain may read. len may be NULL. */
struct tw_error *tw_store_read(
	struct tw_store *store, const char *path, char **out, size_t *len) TW_MUST_CHECK;
/* The names below a path; the caller frees *out, which holds them all. None: as for tw_store_read(). */
struct tw_error *tw_store_list(
	struct tw_store *store, const char *path, char ***out, size_t *n) TW_MUST_CHECK;
/* Permissions as text: "n0,r5". *out is NULL when there is no such key. */
struct tw_error *tw_store_permissions(struct tw_store *store, const char *path, char **out) TW_MUST_CHECK;

/* One value to write; NULL: remove the key. */
struct tw_store_value {
	const char *name;
	const char *value;
};

/* Writes values into a directory that only the domain owner can read; it is made when it is missing. All of it
 * happens or nothing, and nothing when parent does not exist: what has been removed does not come back. parent
 * NULL: dir is made in any case. *written may be NULL. */
struct tw_error *tw_store_write_dir(struct tw_store *store, const char *parent, const char *dir, unsigned owner,
	const struct tw_store_value *values, size_t n, bool *written) TW_MUST_CHECK;
/* Removes a path with all below it, if it is there. */
struct tw_error *tw_store_remove(struct tw_store *store, const char *path) TW_MUST_CHECK;

struct tw_error *tw_store_watch(struct tw_store *store, const char *path) TW_MUST_CHECK;
/* Readable when there are events; not when the connection is lost. */
int tw_store_fd(struct tw_store *store);
/* The path of the next event, which the caller frees; *out is NULL when there is none. Does not block. */
struct tw_error *tw_store_event(struct tw_store *store, char **out) TW_MUST_CHECK;

#endif
