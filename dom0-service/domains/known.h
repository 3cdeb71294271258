/* SPDX-License-Identifier: BSD-3-Clause */
/* The guests that have been told of. Private to domains/. */
#ifndef TW_DOMAINS_KNOWN_H
#define TW_DOMAINS_KNOWN_H

#include "base/hash.h"
#include "xenstore/schema.h"

struct tw_known {
	unsigned domid;
	bool named;
	char uuid[TW_XS_UUID_MAX];
	bool fresh; /* not read since the connection was made */
	UT_hash_handle hh;
};

/* NULL: it is not known. */
struct tw_known *tw_known_find(struct tw_known *all, unsigned domid);
/* Makes it known, if it is not. NULL: no memory. */
struct tw_known *tw_known_get(struct tw_known **all, unsigned domid);
void tw_known_drop(struct tw_known **all, struct tw_known *known);
void tw_known_drop_all(struct tw_known **all);
/* None has been read since. */
void tw_known_all_fresh(struct tw_known *all);
bool tw_known_any_fresh(struct tw_known *all);

#endif
