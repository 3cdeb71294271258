/* SPDX-License-Identifier: BSD-3-Clause */
/* Ranges of a disk of which writes were missed. */
#ifndef TW_INSPECT_MISSED_H
#define TW_INSPECT_MISSED_H

#include "base/error.h"
#include "event/event.h"
#include "record.h"

struct tw_missed {
	struct tw_range *ranges; /* bytes of the disk; may overlap */
	size_t n, cap;
};

/* Adds the sectors of a record. */
struct tw_error *tw_missed_add(struct tw_missed *missed, const struct tw_record *record) TW_MUST_CHECK;
/* Empties it and frees its memory. */
void tw_missed_clear(struct tw_missed *missed);

#endif
