/* SPDX-License-Identifier: BSD-3-Clause */
/* Holds a live xenstore against the schema. */
#ifndef TW_XENSTORE_CHECK_H
#define TW_XENSTORE_CHECK_H

#include "xenstore/store.h"

struct tw_check_result {
	size_t disks;  /* that this domain serves */
	size_t ours;   /* of them, those that tapwired says something of */
	size_t keys;   /* looked at */
	size_t wrong;  /* complaints */
};

/* Takes one complaint: a path and what is wrong there. */
typedef void (*tw_check_report_fn)(void *arg, const char *path, const char *text);

/* Looks at every disk that this domain serves, at their guests, and at what tapwired says of itself. Errors are
 * xenstore's own; what deviates is reported and counted. */
struct tw_error *tw_xenstore_check(
	struct tw_store *store, tw_check_report_fn report, void *arg, struct tw_check_result *out) TW_MUST_CHECK;

#endif
