/* SPDX-License-Identifier: BSD-3-Clause */
/* The disk that somebody means who names a guest and a device. Blocking; see xenstore/store.h for who calls. */
#ifndef TW_DOMAINS_FIND_H
#define TW_DOMAINS_FIND_H

#include "domains/guest.h"

struct tw_found_disk {
	struct tw_guest *guest;
	const struct tw_guest_disk *disk; /* one of guest's */
};

/* who: a number, a UUID, or a name of a guest that this domain serves disks to. TW_UNAVAILABLE: there is no such
 * guest or disk, or it is not clear which; the message says what there is. */
struct tw_error *tw_find_disk(
	struct tw_store *store, const char *who, const char *vdev, struct tw_found_disk *out) TW_MUST_CHECK;
/* Also after a failure, and for one that is all zeroes. */
void tw_found_disk_deinit(struct tw_found_disk *found);

#endif
