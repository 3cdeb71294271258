/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Producer and consumer as threads that share one mapping: the thread sanitizer (make tsan) tells
 * accesses apart by their addresses, and would see nothing of two mappings of one file. So this
 * test looks into both sides, and takes the consumer's code in.
 */
#include "ring_fixture.h"

#include "ring-producer.h"
#include "ring-reader.c"

#include <poll.h>
#include <pthread.h>
#include <sys/file.h>

#define BLOCKS 256u
#define DISK (BLOCKS * 4096u)
#define WRITES 40000u
#define WATCHED 64u /* blocks from here on are wanted at times only */

struct both {
	struct tw_ring *ring;
	struct tw_ring_reader *r;
	_Atomic uint64_t image[BLOCKS]; /* the write that each block holds */
	_Atomic bool done;              /* all is published, and no gap is open */
	uint64_t replica[BLOCKS];       /* the consumer's own */
	unsigned gaps, records, ranges, sleeps;
};

static uint32_t next_random(uint32_t *seed)
{
	*seed = *seed * 1664525u + 1013904223u;
	return *seed >> 8;
}

/* --- the producer --- */

static void write_some(struct both *both, uint32_t *seed, uint64_t stamp)
{
	static char buf[7 * 4096];
	const uint64_t block = next_random(seed) % (BLOCKS - 7), n = 1 + next_random(seed) % 7;
	tw_ring_intent(both->ring, 0, block * 8, n * 8);
	for (uint64_t i = 0; i < n; i++)
		atomic_store(&both->image[block + i], stamp);
	fill_sectors(buf, block * 8, n * 8, stamp);
	tw_ring_publish(both->ring, 0, block * 8, n * 8, buf);
	tw_ring_intent(both->ring, 0, 0, 0);
}

static void *produce(void *arg)
{
	struct both *both = arg;
	uint32_t seed = 1;
	for (uint64_t stamp = 1; stamp <= WRITES; stamp++) {
		write_some(both, &seed, stamp);
		/* Now and then slow enough for the consumer to catch up, and to sleep. */
		if (next_random(&seed) % 64 == 0)
			usleep(next_random(&seed) % 400);
	}
	while (tw_ring_poll(both->ring))
		usleep(1000);
	atomic_store(&both->done, true);
	/* A record that says so: nobody need look for it. */
	tw_ring_publish(both->ring, TW_RECORD_FLUSH, 0, 0, NULL);
	return NULL;
}

/* --- the consumer --- */

static void read_image(uint64_t sector, uint64_t nsectors, void *arg)
{
	struct both *both = arg;
	for (uint64_t block = sector / 8; block < (sector + nsectors + 7) / 8; block++)
		both->replica[block] = atomic_load(&both->image[block]);
}

static void take(struct both *both, const struct tw_record *rec)
{
	both->records++;
	if (rec->flags & TW_RECORD_GAP) {
		both->gaps++;
		assert_int_equal(tw_ring_take_gap(both->r, read_image, both), 0);
	} else if (rec->payload) {
		const uint64_t stamp = ((const uint64_t *)rec->payload)[1];
		assert_true(sectors_hold(rec->payload, rec->sector, rec->nsectors, stamp));
		for (uint64_t i = 0; i < rec->nsectors / 8; i++)
			both->replica[rec->sector / 8 + i] = stamp;
	} else if (rec->nsectors) {
		both->ranges++;
		read_image(rec->sector, rec->nsectors, both);
	}
}

static void change_interest(struct both *both, uint32_t *seed)
{
	const uint32_t block = WATCHED + next_random(seed) % (BLOCKS - WATCHED);
	tw_ring_want(both->r, block * 8ull, 8, next_random(seed) % 2);
	if (next_random(seed) % 16 == 0)
		tw_ring_interest(both->r, next_random(seed) % 4);
}

static void sleep_a_while(struct both *both)
{
	struct pollfd pfd = {.fd = tw_ring_bell_fd(both->r), .events = POLLIN};
	if (tw_ring_arm(both->r) == 0) {
		both->sleeps++;
		assert_int_equal(poll(&pfd, 1, 60000), 1); /* else a wakeup was lost */
	}
	tw_ring_disarm(both->r);
}

static void consume(struct both *both)
{
	uint32_t seed = 2;
	int ret;
	for (;;) {
		struct tw_record rec;
		while ((ret = tw_ring_next(both->r, &rec)) == 1) {
			take(both, &rec);
			change_interest(both, &seed);
			if (next_random(&seed) % 4 == 0)
				tw_ring_release(both->r);
			if (next_random(&seed) % 2048 == 0)
				usleep(2000); /* the ring fills up */
		}
		assert_int_equal(ret, 0);
		tw_ring_release(both->r);
		if (atomic_load(&both->done) && tw_ring_reader_backlog(both->r) == 0)
			return;
		sleep_a_while(both);
	}
}

/* --- */

static void share_the_mappings(struct both *both)
{
	struct tw_ring *ring = both->ring;
	struct tw_ring_reader *r = both->r;
	munmap(r->base, ring_map_bytes(&r->geometry, r->header.data_bytes));
	r->base = ring->base;
	r->data = ring->data;
	r->producer = ring->shared;
	munmap((void *)ring->cursor, RING_PAGE);
	ring->cursor = r->cursor;
	munmap((void *)ring->interest, ring_interest_bytes(&ring->geometry));
	ring->interest = r->interest;
}

static void two_threads_end_with_the_same_disk(void **state)
{
	const struct fixture *f = *state;
	struct both *both = calloc(1, sizeof(*both));
	pthread_t producer;
	assert_int_equal(tw_ring_create(f->path, DISK, RING_BYTES, &both->ring), 0);
	assert_int_equal(tw_ring_reader_open(f->path, &both->r), 0);
	share_the_mappings(both);
	tw_ring_want(both->r, 0, WATCHED * 8, true);
	tw_ring_interest(both->r, true);
	assert_int_equal(pthread_create(&producer, NULL, produce, both), 0);
	consume(both);
	pthread_join(producer, NULL);
	for (unsigned block = 0; block < BLOCKS; block++)
		assert_int_equal(both->replica[block], atomic_load(&both->image[block]));
	/* All of it has happened. */
	assert_true(both->gaps > 2 && both->records > 100 && both->ranges > 2 && both->sleeps > 2);
	/* Unmapped once. */
	both->r->base = NULL;
	both->r->cursor = NULL;
	both->r->interest = NULL;
	tw_ring_reader_destroy(both->r);
	tw_ring_destroy(both->ring);
	free(both);
}

int main(void)
{
	const struct CMUnitTest tests[] = {ring_test(two_threads_end_with_the_same_disk)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
