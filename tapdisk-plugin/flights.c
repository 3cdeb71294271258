/* SPDX-License-Identifier: BSD-3-Clause */
#include "flights.h"

#include <string.h>

void flights_init(struct flights *f)
{
	memset(f, 0, sizeof(*f));
	/* The lowest place first: it has an intent slot of its own. */
	for (uint32_t i = 0; i < FLIGHTS_MAX; i++)
		f->free_places[i] = FLIGHTS_MAX - 1 - i;
}

/* --- intents --- */

/* A slot that says [first, end) already, or nothing, is to say [to_first, to_end), which holds it. The
 * length goes first: whoever is killed between the two stores has noted too much, not too little. */
static void widen_intent(
	struct tw_ring *ring, unsigned slot, uint64_t first, uint64_t to_first, uint64_t to_end)
{
	if (!ring)
		return;
	if (to_first < first)
		tw_ring_intent(ring, slot, first, to_end - to_first);
	tw_ring_intent(ring, slot, to_first, to_end - to_first);
}

/* One range for all that have no slot of their own. It only grows, until they are all gone. */
static void join_crowd(struct flights *f, struct tw_ring *ring, uint64_t first, uint64_t end)
{
	const uint64_t was = f->crowd_first;
	if (first < f->crowd_first)
		f->crowd_first = first;
	if (end > f->crowd_end)
		f->crowd_end = end;
	widen_intent(ring, FLIGHTS_OWN_INTENTS, was, f->crowd_first, f->crowd_end);
}

void flights_note(const struct flights *f, struct tw_ring *ring)
{
	for (uint32_t i = 0; i < f->count; i++) {
		const struct flight *flight = &f->list[i];
		if (flight->place < FLIGHTS_OWN_INTENTS)
			tw_ring_intent(ring, flight->place, flight->first,
				flight->end - flight->first);
	}
	if (f->crowd)
		tw_ring_intent(ring, FLIGHTS_OWN_INTENTS, f->crowd_first,
			f->crowd_end - f->crowd_first);
}

/* --- who is where --- */

static void count_blocks(struct flights *f, uint64_t first, uint64_t end, uint16_t by)
{
	const uint64_t last = (end - 1) >> FLIGHTS_BLOCK_SHIFT;
	for (uint64_t b = first >> FLIGHTS_BLOCK_SHIFT; b <= last; b++)
		f->at_block[b % FLIGHTS_BLOCKS] = (uint16_t)(f->at_block[b % FLIGHTS_BLOCKS] + by);
}

static void enter(struct flights *f, const struct flight *flight)
{
	const uint64_t blocks = (flight->end - flight->first) >> FLIGHTS_BLOCK_SHIFT;
	f->is_long[flight->place] = blocks >= FLIGHTS_LONG;
	if (f->is_long[flight->place])
		f->longs++;
	else
		count_blocks(f, flight->first, flight->end, 1);
}

static void leave(struct flights *f, const struct flight *flight)
{
	if (f->is_long[flight->place])
		f->longs--;
	else
		count_blocks(f, flight->first, flight->end, UINT16_MAX);
}

/* No other write touches any of these blocks; the one whose they are is counted there. */
static bool is_alone(const struct flights *f, uint64_t first, uint64_t end)
{
	const uint64_t last = (end - 1) >> FLIGHTS_BLOCK_SHIFT;
	if (f->longs)
		return false;
	for (uint64_t b = first >> FLIGHTS_BLOCK_SHIFT; b <= last; b++)
		if (f->at_block[b % FLIGHTS_BLOCKS] != 1)
			return false;
	return true;
}

/* --- writes --- */

uint32_t flights_begin(struct flights *f, struct tw_ring *ring, uint64_t first, uint64_t count)
{
	if (f->count == FLIGHTS_MAX)
		return FLIGHTS_FULL;
	const uint32_t place = f->free_places[FLIGHTS_MAX - 1 - f->count];
	f->list[f->count] = (struct flight){first, first + count, place};
	enter(f, &f->list[f->count]);
	f->where[place] = f->count++;
	f->unsure[place] = false;
	if (place < FLIGHTS_OWN_INTENTS) {
		if (ring)
			tw_ring_intent(ring, place, first, count);
		return place;
	}
	if (f->crowd++ == 0) {
		f->crowd_first = first;
		f->crowd_end = first + count;
	}
	join_crowd(f, ring, first, first + count);
	return place;
}

void flights_widen(struct flights *f, struct tw_ring *ring, uint32_t place, uint64_t first,
	uint64_t count)
{
	struct flight *flight = &f->list[f->where[place]];
	const uint64_t was = flight->first;
	leave(f, flight);
	if (first < flight->first)
		flight->first = first;
	if (first + count > flight->end)
		flight->end = first + count;
	enter(f, flight);
	if (place < FLIGHTS_OWN_INTENTS)
		widen_intent(ring, place, was, flight->first, flight->end);
	else
		join_crowd(f, ring, first, first + count);
}

void flights_mark(struct flights *f, uint32_t place, uint64_t first, uint64_t count)
{
	const uint64_t end = first + count;
	if (is_alone(f, first, end))
		return;
	for (uint32_t i = 0; i < f->count; i++) {
		const struct flight *other = &f->list[i];
		if (first < other->end && other->first < end && other->place != place)
			f->unsure[other->place] = true;
	}
}

void flights_end(struct flights *f, struct tw_ring *ring, uint32_t place)
{
	const uint32_t at = f->where[place];
	leave(f, &f->list[at]);
	const struct flight last = f->list[--f->count];
	f->list[at] = last;
	f->where[last.place] = at;
	f->free_places[FLIGHTS_MAX - 1 - f->count] = place;
	if (place >= FLIGHTS_OWN_INTENTS && --f->crowd > 0)
		return;
	if (ring)
		tw_ring_intent(ring, place < FLIGHTS_OWN_INTENTS ? place : FLIGHTS_OWN_INTENTS, 0, 0);
}
