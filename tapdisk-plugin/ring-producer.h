/* SPDX-License-Identifier: BSD-3-Clause */
/* The producer's own state; between ring.c and ring-file.c. */
#ifndef TW_RING_PRODUCER_H
#define TW_RING_PRODUCER_H

#include "ring-layout.h"
#include <stdbool.h>

struct tw_ring {
	/* What the hot path needs of the shared memory, never read back from it. */
	uint64_t head;
	uint64_t tail;     /* the last sane one that the consumer gave */
	uint64_t sequence; /* of the next record */
	uint64_t rung;     /* the sleep that the bell was last rung for */
	bool gap;          /* one is open, or announced and not done with; or may be */
	uint64_t cleared; /* words of the sent gap's summary that are */
	uint64_t data_bytes;
	char *data;
	struct ring_producer *shared;
	const struct ring_cursor *cursor;
	const struct ring_interest *interest;
	int bell;

	int fd; /* holds the producer's lock */
	char *base;
	struct ring_intent *intents;
	struct ring_geometry geometry;
};

/* Unmaps and closes what is there; the files stay. */
void ring_close(struct tw_ring *ring);

/* Takes the shared state over from a producer that may have been killed at any instruction, or from
 * ring-file.c, which made it. ring->head and so on are set afterwards. */
void ring_adopt(struct tw_ring *ring);

#endif
