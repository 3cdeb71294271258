/* SPDX-License-Identifier: BSD-3-Clause */
/* What the courier asks of an event before it goes into a batch with the events of other disks. */
#ifndef TW_COURIER_ENVELOPE_H
#define TW_COURIER_ENVELOPE_H

#include "base/error.h"
#include <stddef.h>
#include <stdint.h>

/* What an event must say of itself. */
struct tw_envelope {
	const char *source; /* the disk's, without a slash at its end: the event's is this or below it */
	const char *epoch;  /* the event's id is epoch-sequence */
	uint64_t sequence;
};

/* Checks that body is one well-formed JSON object in UTF-8 and says what it must: an inspector that a guest
 * has taken over can neither spoil a batch nor speak for another disk. TW_BAD_DATA when it is not. */
struct tw_error *tw_envelope_check(const char *body, size_t len, const struct tw_envelope *envelope)
	TW_MUST_CHECK;

#endif
