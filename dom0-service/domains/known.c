/* SPDX-License-Identifier: BSD-3-Clause */
#include "domains/known.h"

#include <stdlib.h>

struct tw_known *tw_known_find(struct tw_known *all, unsigned domid)
{
	struct tw_known *known;
	HASH_FIND(hh, all, &domid, sizeof(domid), known);
	return known;
}

struct tw_known *tw_known_get(struct tw_known **all, unsigned domid)
{
	struct tw_known *known = tw_known_find(*all, domid);
	if (known)
		return known;
	known = calloc(1, sizeof(*known));
	if (!known)
		return NULL;
	known->domid = domid;
	HASH_ADD(hh, *all, domid, sizeof(known->domid), known);
	return known;
}

void tw_known_drop(struct tw_known **all, struct tw_known *known)
{
	HASH_DEL(*all, known);
	free(known);
}

void tw_known_drop_all(struct tw_known **all)
{
	while (*all)
		tw_known_drop(all, *all);
}

void tw_known_all_fresh(struct tw_known *all)
{
	struct tw_known *known, *next;
	HASH_ITER (hh, all, known, next)
		known->fresh = true;
}

bool tw_known_any_fresh(struct tw_known *all)
{
	struct tw_known *known, *next;
	HASH_ITER (hh, all, known, next)
		if (known->fresh)
			return true;
	return false;
}
