/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The writes that are on their way to the image, for a backend that may not wait: what range-lock.h
 * is for one that may. Two writes that overlap while both are under way may reach the image in either
 * order, and nobody can tell which. So when one of them is done, those that overlap it are marked: of
 * a marked write the content on the image is unknown, and it goes to the dirty map, for which the
 * consumer reads the image. docs/ring.md, "Overlapping writes", has the argument.
 *
 * A fixed number of places, no allocation after the start. One thread.
 */
#ifndef TW_FLIGHTS_H
#define TW_FLIGHTS_H

#include "ring.h"

#include <stdbool.h>
#include <stdint.h>

/* No image driver of tapdisk takes more than 352 requests at a time. */
#define FLIGHTS_MAX 1024u
/* Intent slots of the ring that belong to one write each; the last one is everybody else's. */
#define FLIGHTS_OWN_INTENTS (TW_RING_INTENTS - 1)

/* Writes are counted by the 4 KiB blocks that they touch, a block standing for all that are as many
 * blocks apart: where nobody else is counted there is nobody to be marked. Longer writes are not counted,
 * and while there are any, each is compared with each. */
#define FLIGHTS_BLOCKS 4096u
#define FLIGHTS_BLOCK_SHIFT 3
#define FLIGHTS_LONG 64u

/* Sectors [first, end) of the write in a place. */
struct flight {
	uint64_t first;
	uint64_t end;
	uint32_t place;
};

struct flights {
	uint32_t count;
	struct flight list[FLIGHTS_MAX];  /* [0, count), in no order */
	uint32_t where[FLIGHTS_MAX];      /* a place's index in list */
	uint32_t free_places[FLIGHTS_MAX]; /* a stack of FLIGHTS_MAX - count */
	bool unsure[FLIGHTS_MAX];          /* overlapped by one that is done */
	bool is_long[FLIGHTS_MAX];
	uint32_t longs; /* how many are */
	uint16_t at_block[FLIGHTS_BLOCKS]; /* how many of the others touch it */

	/* What stands in the last intent slot: all writes without a slot of their own. */
	uint32_t crowd;
	uint64_t crowd_first;
	uint64_t crowd_end;
};

#define FLIGHTS_FULL UINT32_MAX

void flights_init(struct flights *f);

/* A write of count > 0 sectors begins. Its place, or FLIGHTS_FULL. ring may be NULL: with it, the
 * write's intent is noted. */
uint32_t flights_begin(struct flights *f, struct tw_ring *ring, uint64_t first, uint64_t count);
/* The write in this place is longer than was said, or several: it reaches from here to there, too. */
void flights_widen(struct flights *f, struct tw_ring *ring, uint32_t place, uint64_t first,
	uint64_t count);
/* Some sectors of the write in this place are done, well or not: marks the others that overlap them. */
void flights_mark(struct flights *f, uint32_t place, uint64_t first, uint64_t count);
/* Whether it was marked. */
static inline bool flights_unsure(const struct flights *f, uint32_t place)
{
	return f->unsure[place];
}
/* It is over: all of it was published or has failed. */
void flights_end(struct flights *f, struct tw_ring *ring, uint32_t place);
/* Notes the intents of all that are under way in a ring that has just come. */
void flights_note(const struct flights *f, struct tw_ring *ring);

#endif
