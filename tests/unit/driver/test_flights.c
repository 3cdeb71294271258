/* SPDX-License-Identifier: BSD-3-Clause */
/* The writes in flight: who overlaps whom, and what a producer that dies has left behind. */
#include "driver_fixture.h"
#include "flights.h"

#define DISK_SECTORS 1000000u

static struct tw_ring *open_ring(const struct fixture *f)
{
	char path[160];
	struct tw_ring *ring;
	snprintf(path, sizeof(path), "%s/ring", f->dir);
	assert_int_equal(tw_ring_create(path, DISK_SECTORS * 512ull, TW_RING_MIN_BYTES, &ring), 0);
	return ring;
}

/* --- marks --- */

/* What is in flight, kept as plainly as it can be. */
struct model {
	bool there, marked;
	uint64_t first, count;
};

static void check_marks(const struct flights *f, const struct model *model)
{
	unsigned there = 0;
	for (uint32_t place = 0; place < FLIGHTS_MAX; place++) {
		there += model[place].there;
		if (model[place].there)
			assert_int_equal(flights_unsure(f, place), model[place].marked);
	}
	assert_int_equal(f->count, there);
}

static void marks_are_those_of_a_plain_model(void **state)
{
	struct fixture *f = *state;
	struct flights *flights = calloc(1, sizeof(*flights));
	struct model *model = calloc(FLIGHTS_MAX, sizeof(*model));
	flights_init(flights);
	for (unsigned step = 0; step < 20000; step++) {
		/* Long ones now and then, and for a while none; some a multiple of the table apart. */
		const bool is_long = step / 2000 % 2 && host_random(f->host, 50) == 0;
		const uint64_t count = 1 + host_random(f->host, is_long ? 1500 : 20);
		const uint64_t first = host_random(f->host, 2000) +
			host_random(f->host, 3) * FLIGHTS_BLOCKS * 8ull;
		const uint32_t some = host_random(f->host, FLIGHTS_MAX);
		if (host_random(f->host, 100) < (step / 5000 % 2 ? 30 : 60)) {
			const uint32_t place = flights_begin(flights, NULL, first, count);
			if (place == FLIGHTS_FULL)
				continue;
			assert_false(model[place].there);
			model[place] = (struct model){true, false, first, count};
		} else if (model[some].there) {
			const uint64_t done = model[some].first, n = model[some].count;
			flights_mark(flights, some, done, n);
			for (uint32_t i = 0; i < FLIGHTS_MAX; i++)
				if (i != some && model[i].first < done + n &&
					done < model[i].first + model[i].count)
					model[i].marked = true;
			flights_end(flights, NULL, some);
			model[some].there = false;
		}
		if (step % 64 == 0)
			check_marks(flights, model);
	}
	check_marks(flights, model);
	free(model);
	free(flights);
}

static void all_places_can_be_taken_and_no_more(void **state)
{
	(void)state;
	struct flights *flights = calloc(1, sizeof(*flights));
	flights_init(flights);
	for (uint32_t i = 0; i < FLIGHTS_MAX; i++)
		assert_int_equal(flights_begin(flights, NULL, i, 1), i);
	assert_int_equal(flights_begin(flights, NULL, 0, 1), FLIGHTS_FULL);
	flights_end(flights, NULL, 17);
	assert_int_equal(flights_begin(flights, NULL, 0, 1), 17);
	free(flights);
}

/* Short ones that come together, and one that becomes longer. */
static void what_has_widened_is_seen_where_it_is(void **state)
{
	(void)state;
	struct flights *flights = calloc(1, sizeof(*flights));
	flights_init(flights);
	const uint32_t place = flights_begin(flights, NULL, 100, 8);
	flights_widen(flights, NULL, place, 140, 8);
	const uint32_t between = flights_begin(flights, NULL, 120, 8);
	flights_mark(flights, between, 120, 8);
	assert_true(flights_unsure(flights, place));
	free(flights);
}

/* Counts that were left behind would only cost time, and more from day to day. */
static void nothing_is_counted_when_all_is_over(void **state)
{
	struct fixture *f = *state;
	struct flights *flights = calloc(1, sizeof(*flights));
	flights_init(flights);
	for (unsigned turn = 0; turn < 50; turn++) {
		uint32_t places[40];
		for (unsigned i = 0; i < 40; i++) {
			places[i] = flights_begin(flights, NULL, host_random(f->host, 1u << 30),
				1 + host_random(f->host, 700));
			if (i % 7 == 0)
				flights_widen(flights, NULL, places[i], host_random(f->host, 1u << 30), 9);
		}
		for (unsigned i = 0; i < 40; i++)
			flights_end(flights, NULL, places[i]);
	}
	assert_int_equal(flights->longs, 0);
	for (unsigned b = 0; b < FLIGHTS_BLOCKS; b++)
		assert_int_equal(flights->at_block[b], 0);
	free(flights);
}

/* --- intents --- */

struct dirty {
	bool sectors[DISK_SECTORS];
};

static void note_dirty(uint64_t sector, uint64_t nsectors, void *arg)
{
	struct dirty *dirty = arg;
	for (uint64_t s = sector; s < sector + nsectors && s < DISK_SECTORS; s++)
		dirty->sectors[s] = true;
}

/* What the next producer finds, when the last one was killed now. */
static struct dirty *left_behind(const struct fixture *f, struct tw_ring *ring, bool *any)
{
	struct dirty *dirty = calloc(1, sizeof(*dirty));
	struct tw_ring_reader *reader;
	struct tw_record record;
	char path[160];
	snprintf(path, sizeof(path), "%s/ring", f->dir);
	tw_ring_destroy(ring); /* leaves the intents as they are */
	ring = open_ring(f);
	assert_int_equal(tw_ring_reader_open(path, &reader), 0);
	*any = tw_ring_next(reader, &record) == 1;
	if (*any)
		assert_int_equal(tw_ring_take_gap(reader, note_dirty, dirty), 0);
	tw_ring_release(reader);
	tw_ring_reader_destroy(reader);
	tw_ring_destroy(ring);
	return dirty;
}

static void whatever_is_in_flight_is_noted(void **state)
{
	static const unsigned numbers[] = {1, 200, 256, 600, FLIGHTS_MAX};
	struct fixture *f = *state;
	for (size_t n = 0; n < sizeof(numbers) / sizeof(*numbers); n++) {
		struct flights *flights = calloc(1, sizeof(*flights));
		struct tw_ring *ring = open_ring(f);
		uint64_t first[FLIGHTS_MAX];
		bool any;
		flights_init(flights);
		for (unsigned i = 0; i < numbers[n]; i++) {
			/* The later ones lie lower, so that their common range grows at both ends. */
			first[i] = i % 2 ? 500000 - i * 400 : 500000 + i * 400;
			assert_int_equal(flights_begin(flights, ring, first[i], 8), i);
		}
		struct dirty *dirty = left_behind(f, ring, &any);
		assert_true(any);
		for (unsigned i = 0; i < numbers[n]; i++)
			assert_true(dirty->sectors[first[i]] && dirty->sectors[first[i] + 7]);
		assert_false(dirty->sectors[0]);
		assert_false(dirty->sectors[DISK_SECTORS - 1]);
		free(dirty);
		free(flights);
	}
}

static void what_is_over_is_not(void **state)
{
	struct fixture *f = *state;
	struct flights *flights = calloc(1, sizeof(*flights));
	struct tw_ring *ring = open_ring(f);
	bool any;
	flights_init(flights);
	for (uint32_t i = 0; i < FLIGHTS_MAX; i++)
		(void)flights_begin(flights, ring, i * 8, 8);
	for (uint32_t i = 0; i < FLIGHTS_MAX; i++)
		flights_end(flights, ring, i);
	/* The common range starts anew. */
	for (uint32_t i = 0; i < 300; i++)
		(void)flights_begin(flights, ring, 900000 + i * 8, 8);
	free(left_behind(f, ring, &any));
	assert_true(any);
	ring = open_ring(f);
	flights_init(flights);
	for (uint32_t i = 0; i < 300; i++)
		(void)flights_begin(flights, ring, i * 8, 8);
	for (uint32_t i = 0; i < 300; i++)
		flights_end(flights, ring, i);
	struct dirty *dirty = left_behind(f, ring, &any);
	assert_false(any);
	free(dirty);
	free(flights);
}

static void a_ring_that_comes_later_learns_of_all(void **state)
{
	struct fixture *f = *state;
	struct flights *flights = calloc(1, sizeof(*flights));
	bool any;
	flights_init(flights);
	for (uint32_t i = 0; i < 300; i++)
		(void)flights_begin(flights, NULL, i * 1000, 8);
	struct tw_ring *ring = open_ring(f);
	flights_note(flights, ring);
	struct dirty *dirty = left_behind(f, ring, &any);
	assert_true(any);
	for (uint32_t i = 0; i < 300; i++)
		assert_true(dirty->sectors[i * 1000]);
	free(dirty);
	free(flights);
}

/* Several that share a place: from its lowest sector to its highest. */
static void a_place_that_widens_is_noted_as_wide(void **state)
{
	struct fixture *f = *state;
	struct flights *flights = calloc(1, sizeof(*flights));
	struct tw_ring *ring = open_ring(f);
	bool any;
	flights_init(flights);
	const uint32_t place = flights_begin(flights, ring, 5000, 8);
	flights_widen(flights, ring, place, 1000, 8);
	flights_widen(flights, ring, place, 9000, 8);
	const uint32_t other = flights_begin(flights, NULL, 1500, 1);
	flights_mark(flights, other, 1500, 1);
	assert_true(flights_unsure(flights, place));
	struct dirty *dirty = left_behind(f, ring, &any);
	assert_true(any && dirty->sectors[1000] && dirty->sectors[5000] && dirty->sectors[9007]);
	assert_false(dirty->sectors[900]);
	assert_false(dirty->sectors[9100]);
	free(dirty);
	free(flights);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		driver_test(marks_are_those_of_a_plain_model),
		driver_test(all_places_can_be_taken_and_no_more),
		driver_test(what_has_widened_is_seen_where_it_is),
		driver_test(nothing_is_counted_when_all_is_over),
		driver_test(whatever_is_in_flight_is_noted),
		driver_test(what_is_over_is_not),
		driver_test(a_ring_that_comes_later_learns_of_all),
		driver_test(a_place_that_widens_is_noted_as_wide),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
