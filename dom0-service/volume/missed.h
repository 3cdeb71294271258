/* SPDX-License-Identifier: BSD-3-Clause */
/* What is known of the writes that were missed. */
#ifndef TW_VOLUME_MISSED_H
#define TW_VOLUME_MISSED_H

#include "base/error.h"
#include "event/event.h"
#include "record.h"

struct tw_missed {
	struct tw_range *ranges; /* bytes of the disk; may overlap */
	size_t n, cap;
	size_t tidied;  /* how many were left when they were last joined */
	uint64_t last_ns; /* dom0's clock at the last record that was added; 0: there was none */
	bool unwatched; /* nobody noted any: a file whose times changed may have changed anywhere */
	/* ... while the disk was in use: so may one whose times were told of shortly before, since its
	 * data reach the disk later than they do. */
	bool in_use;
};

/* Adds bytes. */
struct tw_error *tw_missed_add_range(
	struct tw_missed *missed, uint64_t offset, uint64_t length) TW_MUST_CHECK;
/* Adds the sectors of a record. */
struct tw_error *tw_missed_add(
	struct tw_missed *missed, const struct tw_record *record) TW_MUST_CHECK;
/* Sorts and joins the ranges. */
void tw_missed_tidy(struct tw_missed *missed);
/* How many bytes it is, each counted once. Tidies. */
uint64_t tw_missed_bytes(struct tw_missed *missed);
/* True when one of these bytes was missed. It has to be tidy. */
bool tw_missed_hits(const struct tw_missed *missed, uint64_t offset, uint64_t length);
/* Empties it and frees its memory. */
void tw_missed_clear(struct tw_missed *missed);

#endif
