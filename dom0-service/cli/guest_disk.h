/* SPDX-License-Identifier: BSD-3-Clause */
/* The tapdisk behind a guest's disk, for `tapwire attach` and `detach`: xenstore says who and which, tap-ctl what it
 * serves. */
#ifndef TW_CLI_GUEST_DISK_H
#define TW_CLI_GUEST_DISK_H

#include "domains/find.h"
#include "event/event.h"

struct tw_guest_tapdisk {
	struct tw_found_disk found;
	struct tw_disk_id id; /* points into found; NULL: xenstore does not say */
	char *target;         /* "PID:MINOR" */
	char *image;
};

/* given: "PID:MINOR", or "auto": as xenstore has it. */
struct tw_error *tw_guest_tapdisk_find(const char *tap_ctl, const char *guest, const char *vdev, const char *given,
	struct tw_guest_tapdisk *out) TW_MUST_CHECK;
/* Also after a failure, and for one that is all zeroes. */
void tw_guest_tapdisk_deinit(struct tw_guest_tapdisk *tapdisk);

#endif
