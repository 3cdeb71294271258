/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The keys of xenstore that tapwire knows, as xenstore-schema/keys.ini lists them: no path of xenstore is
 * written anywhere else in the code. Pure functions, no connection.
 */
#ifndef TW_XENSTORE_SCHEMA_H
#define TW_XENSTORE_SCHEMA_H

#include "xenstore-keys.h" /* made from keys.ini */

#include <stdbool.h>
#include <stddef.h>

#define TW_XS_ID(id, path, type, ours, needed, perms) TW_XS_##id,
enum tw_xs_key { TW_XENSTORE_KEYS(TW_XS_ID) TW_XS_END };
#undef TW_XS_ID

/* The longest path that xenstored takes, and a NUL (XENSTORE_ABS_PATH_MAX is 3072; ours are short). */
#define TW_XS_PATH_MAX 256
#define TW_XS_KIND_MAX 8
#define TW_XS_UUID_MAX 37
/* Numbers of domains are below this (DOMID_FIRST_RESERVED). */
#define TW_XS_DOMID_END 0x7ff0u

/* What stands in braces in a key's path. */
struct tw_xs_ids {
	unsigned self;
	unsigned domid;
	unsigned devid;
	char kind[TW_XS_KIND_MAX];
	char uuid[TW_XS_UUID_MAX]; /* in lower case */
};

/* The types of backends that serve disks; NULL after the last. */
extern const char *const tw_xs_kinds[];

/* The key's path, with the ids put in. */
void tw_xs_path(enum tw_xs_key key, const struct tw_xs_ids *ids, char out[TW_XS_PATH_MAX]);
/* Whether path is the key's path or lies below it; then its parts are put into ids (those that do not occur in
 * it stay). ids->self is not taken but compared. */
bool tw_xs_below(enum tw_xs_key key, const char *path, struct tw_xs_ids *ids);
/* Whether a value is of the key's type. len: without the NUL behind it. */
bool tw_xs_fits(enum tw_xs_key key, const char *value, size_t len);
/* Whether tapwired writes it; whether what it belongs to makes no sense without it. */
bool tw_xs_ours(enum tw_xs_key key);
bool tw_xs_needed(enum tw_xs_key key);
/* Its type as keys.ini has it. */
const char *tw_xs_type(enum tw_xs_key key);
/* The last part of its path. */
const char *tw_xs_name(enum tw_xs_key key);
/* Whether child is a key directly below dir. */
bool tw_xs_is_child(enum tw_xs_key child, enum tw_xs_key dir);

/* The UUID in a value of type uuid-path, in lower case, into out. */
bool tw_xs_read_vm(const char *value, char out[TW_XS_UUID_MAX]);
/* The 36 characters of a UUID at text, in lower case, into out. */
bool tw_xs_read_uuid(const char *text, char out[TW_XS_UUID_MAX]);

#endif
