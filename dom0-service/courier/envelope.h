/* SPDX-License-Identifier: BSD-3-Clause */
/* What the courier asks of an event before it goes into a batch with the events of other disks. */
#ifndef TW_COURIER_ENVELOPE_H
#define TW_COURIER_ENVELOPE_H

#include "base/error.h"
#include <stddef.h>

/* Checks that body is one well-formed JSON object in UTF-8 whose "source" is the disk's own: source itself
 * or below it. TW_BAD_DATA when it is not. source is without a slash at its end. */
struct tw_error *tw_envelope_check(const char *body, size_t len, const char *source) TW_MUST_CHECK;

#endif
