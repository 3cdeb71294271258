/* SPDX-License-Identifier: BSD-3-Clause */
/* The ring when a side dies, at any instruction, and another one comes. */
#include "ring_fixture.h"

#include <signal.h>
#include <sys/wait.h>
#include <time.h>

/* The producer page of a ring that has no producer, to put it into the state of a killed one. */
static struct ring_producer *map_producer_page(
	const struct fixture *f, unsigned char **map, size_t *bytes)
{
	*map = map_file(f, "", bytes);
	return (struct ring_producer *)(*map + RING_PAGE);
}

static void what_was_unread_is_still_there(void **state)
{
	const struct fixture *f = *state;
	struct tw_ring *ring = new_ring(f);
	struct tw_ring_reader *r = new_reader(f);
	struct tw_record rec;
	publish_stamped(ring, 0, 8, 1);
	publish_stamped(ring, 8, 8, 2);
	publish_stamped(ring, 16, 8, 3);
	assert_int_equal(tw_ring_next(r, &rec), 1);
	tw_ring_release(r);
	assert_int_equal(tw_ring_next(r, &rec), 1); /* seen, not released */
	tw_ring_destroy(ring);
	tw_ring_reader_destroy(r);

	ring = new_ring(f);
	publish_stamped(ring, 24, 8, 4);
	r = new_reader(f);
	for (uint64_t i = 2; i <= 4; i++) {
		assert_int_equal(tw_ring_next(r, &rec), 1);
		assert_int_equal(rec.sequence, i);
		assert_true(sectors_hold(rec.payload, (i - 1) * 8, 8, i));
	}
	assert_int_equal(tw_ring_next(r, &rec), 0);
	tw_ring_reader_destroy(r);
	tw_ring_destroy(ring);
}

static void a_consumer_stays_through_a_takeover(void **state)
{
	const struct fixture *f = *state;
	struct tw_ring *ring = new_ring(f);
	struct tw_ring_reader *r = new_reader(f);
	struct tw_record rec;
	uint8_t id[16];
	memcpy(id, tw_ring_reader_id(r), sizeof(id));
	tw_ring_destroy(ring);
	ring = new_ring(f);
	assert_int_equal(tw_ring_reader_producer_alive(r), 1);
	assert_memory_equal(id, tw_ring_reader_id(r), sizeof(id));
	publish_stamped(ring, 0, 1, 1);
	assert_int_equal(tw_ring_next(r, &rec), 1);
	assert_int_equal(rec.sequence, 1);
	tw_ring_reader_destroy(r);
	tw_ring_destroy(ring);
}

static void a_ring_of_another_size_is_replaced(void **state)
{
	const struct fixture *f = *state;
	struct tw_ring *ring = new_ring(f);
	publish_stamped(ring, 0, 1, 1);
	tw_ring_destroy(ring);
	assert_int_equal(tw_ring_create(f->path, DISK_BYTES * 2, RING_BYTES, &ring), 0);
	struct tw_ring_reader *r = new_reader(f);
	assert_int_equal(tw_ring_reader_disk_bytes(r), DISK_BYTES * 2);
	assert_int_equal(tw_ring_reader_backlog(r), 0);
	tw_ring_reader_destroy(r);
	tw_ring_destroy(ring);
}

static void a_gap_that_was_open_is_announced_by_the_next_producer(void **state)
{
	const struct fixture *f = *state;
	struct tw_ring *ring = new_ring(f);
	struct tw_ring_reader *r = new_reader(f);
	const uint64_t lost = fill_ring(ring);
	tw_ring_destroy(ring);
	assert_int_equal(drain_to_gap(r), 0);
	ring = new_ring(f);
	assert_int_equal(drain_to_gap(r), 1);
	struct ranges ranges = taken_gap(r);
	assert_int_equal(ranges.count, 1);
	assert_range(ranges, 0, lost * 8, 8);
	tw_ring_reader_destroy(r);
	tw_ring_destroy(ring);
}

static void a_gap_that_was_not_released_comes_again(void **state)
{
	const struct fixture *f = *state;
	struct tw_ring *ring = new_ring(f);
	struct tw_ring_reader *r = new_reader(f);
	fill_ring(ring);
	drain_to_gap(r);
	tw_ring_poll(ring);
	assert_int_equal(drain_to_gap(r), 1);
	struct ranges first = taken_gap(r);
	tw_ring_reader_destroy(r); /* dies before its release */
	publish_stamped(ring, 5000, 1, 1);
	r = new_reader(f);
	assert_int_equal(drain_to_gap(r), 1);
	struct ranges again = taken_gap(r);
	assert_memory_equal(&first, &again, sizeof(first));
	tw_ring_reader_destroy(r);
	tw_ring_destroy(ring);
}

static void what_was_in_flight_becomes_a_gap(void **state)
{
	const struct fixture *f = *state;
	struct tw_ring *ring = new_ring(f);
	tw_ring_intent(ring, 0, 80, 8);
	tw_ring_intent(ring, 1, 800, 8);
	tw_ring_intent(ring, 255, 4000, 1);
	tw_ring_intent(ring, 1, 0, 0);
	tw_ring_destroy(ring);
	for (int again = 0; again < 2; again++) {
		ring = new_ring(f);
		struct tw_ring_reader *r = new_reader(f);
		assert_int_equal(drain_to_gap(r), !again);
		if (!again) {
			struct ranges ranges = taken_gap(r);
			assert_int_equal(ranges.count, 2);
			assert_range(ranges, 0, 80, 8);
			assert_range(ranges, 1, 4000, 8);
			tw_ring_release(r);
		}
		tw_ring_reader_destroy(r);
		tw_ring_destroy(ring);
	}
}

/* The ring has room, and yet two announced gaps would need the map that the third one uses. */
static void a_gap_of_a_takeover_waits_for_the_release_of_the_last_one(void **state)
{
	const struct fixture *f = *state;
	struct tw_ring *ring = new_ring(f);
	struct tw_ring_reader *r = new_reader(f);
	fill_ring(ring);
	drain_to_gap(r);
	assert_int_equal(tw_ring_poll(ring), 0);
	assert_int_equal(drain_to_gap(r), 1); /* not released */
	tw_ring_intent(ring, 0, 80000, 8);
	tw_ring_destroy(ring);
	ring = new_ring(f);
	assert_int_equal(drain_to_gap(r), 0);
	assert_int_equal(tw_ring_poll(ring), 1);
	tw_ring_release(r);
	assert_int_equal(tw_ring_poll(ring), 0);
	assert_int_equal(drain_to_gap(r), 1);
	struct ranges ranges = taken_gap(r);
	assert_int_equal(ranges.count, 1);
	assert_range(ranges, 0, 80000, 8);
	tw_ring_reader_destroy(r);
	tw_ring_destroy(ring);
}

static void killed_before_the_head_moved_the_number_is_used_again(void **state)
{
	const struct fixture *f = *state;
	struct tw_ring *ring = new_ring(f);
	publish_stamped(ring, 0, 8, 1);
	publish_stamped(ring, 8, 8, 2);
	tw_ring_destroy(ring);
	unsigned char *map;
	size_t bytes;
	struct ring_producer *producer = map_producer_page(f, &map, &bytes);
	/* Back to the instruction before the second record's head was stored. */
	atomic_store(&producer->head, atomic_load(&producer->last_pos));
	munmap(map, bytes);

	ring = new_ring(f);
	publish_stamped(ring, 16, 8, 3);
	struct tw_ring_reader *r = new_reader(f);
	struct tw_record rec;
	assert_int_equal(tw_ring_next(r, &rec), 1);
	assert_int_equal(tw_ring_next(r, &rec), 1);
	assert_int_equal(rec.sequence, 2);
	assert_true(sectors_hold(rec.payload, 16, 8, 3));
	tw_ring_reader_destroy(r);
	tw_ring_destroy(ring);
}

/* 1: before the head was stored, 2: after it and before the gap was closed. */
static void kill_in_announcement(const struct fixture *f, int point)
{
	struct tw_ring *ring = new_ring(f);
	struct tw_ring_reader *r = new_reader(f);
	const uint64_t lost = fill_ring(ring);
	drain_to_gap(r);
	assert_int_equal(tw_ring_poll(ring), 0);
	tw_ring_destroy(ring);
	unsigned char *map;
	size_t bytes;
	struct ring_producer *producer = map_producer_page(f, &map, &bytes);
	atomic_store(&producer->gap_state, atomic_load(&producer->gap_state) + 1);
	if (point == 1)
		atomic_store(&producer->head, atomic_load(&producer->last_pos));
	munmap(map, bytes);

	ring = new_ring(f);
	publish_stamped(ring, 80000, 8, 1);
	assert_int_equal(drain_to_gap(r), 1);
	struct ranges ranges = taken_gap(r);
	assert_int_equal(ranges.count, 1);
	assert_range(ranges, 0, lost * 8, 8);
	tw_ring_release(r);
	assert_int_equal(drain_to_gap(r), 0);
	assert_int_equal(tw_ring_poll(ring), 0);
	assert_int_equal(drain_to_gap(r), 0); /* announced once */
	tw_ring_reader_destroy(r);
	tw_ring_destroy(ring);
}

static void killed_while_it_announced_a_gap_1(void **state)
{
	kill_in_announcement(*state, 1);
}

static void killed_while_it_announced_a_gap_2(void **state)
{
	kill_in_announcement(*state, 2);
}

/* --- kill -9 of both sides at random, on a small disk with a small ring --- */

#define STRESS_BLOCKS 512u
#define STRESS_BYTES (STRESS_BLOCKS * 4096u)

struct stress {
	const struct fixture *f;
	char *image;   /* shared: what the guest's disk holds */
	char *replica; /* shared: what the consumer made of the stream */
	_Atomic int bad;
};

static struct tw_ring *stress_ring(const struct stress *s)
{
	struct tw_ring *ring = NULL;
	/* The last producer may be a zombie whose files are just being closed. */
	for (int i = 0; i < 1000; i++) {
		int ret = tw_ring_create(s->f->path, STRESS_BYTES, RING_BYTES, &ring);
		if (ret != -EBUSY)
			return ret ? NULL : ring;
		usleep(1000);
	}
	return NULL;
}

static void stress_write(struct stress *s, struct tw_ring *ring)
{
	char buf[8 * TW_SECTOR_SIZE];
	const uint64_t n = 1 + (uint64_t)random() % 8;
	const uint64_t sector = (uint64_t)random() % (STRESS_BLOCKS * 8 - n);
	fill_sectors(buf, sector, n, (uint64_t)random());
	tw_ring_intent(ring, 3, sector, n);
	memcpy(s->image + sector * TW_SECTOR_SIZE, buf, n * TW_SECTOR_SIZE);
	tw_ring_publish(ring, 0, sector, n, buf);
	tw_ring_intent(ring, 3, 0, 0);
}

static void produce(struct stress *s, unsigned seed)
{
	struct tw_ring *ring = stress_ring(s);
	if (!ring) {
		s->bad = 1;
		return;
	}
	srandom(seed);
	for (int i = 0; i < 2000000; i++)
		stress_write(s, ring);
	tw_ring_destroy(ring);
}

static void copy_range(uint64_t sector, uint64_t nsectors, void *arg)
{
	struct stress *s = arg;
	memcpy(s->replica + sector * TW_SECTOR_SIZE, s->image + sector * TW_SECTOR_SIZE,
		nsectors * TW_SECTOR_SIZE);
}

/* Applies what there is; true when that was all. */
static bool consume_some(struct stress *s, struct tw_ring_reader *r)
{
	struct tw_record rec;
	int ret;
	for (int i = 0; i < 64; i++) {
		ret = tw_ring_next(r, &rec);
		if (ret <= 0) {
			if (ret < 0)
				s->bad = 2;
			return true;
		}
		if (rec.flags & TW_RECORD_GAP)
			tw_ring_take_gap(r, copy_range, s);
		else
			memcpy(s->replica + rec.sector * TW_SECTOR_SIZE, rec.payload,
				rec.nsectors * TW_SECTOR_SIZE);
		if (i % 4 == 3)
			tw_ring_release(r);
	}
	tw_ring_release(r);
	return false;
}

static void consume(struct stress *s)
{
	struct tw_ring_reader *r = NULL;
	for (int i = 0; i < 1000 && tw_ring_reader_open(s->f->path, &r) != 0; i++)
		usleep(1000);
	if (!r) {
		s->bad = 3;
		return;
	}
	for (long i = 0; i < 100000000 && !s->bad; i++) {
		if (!consume_some(s, r))
			continue;
		tw_ring_release(r);
		if (tw_ring_arm(r) == 0)
			usleep(100);
		tw_ring_disarm(r);
	}
}

static pid_t start(struct stress *s, bool producer, unsigned seed)
{
	pid_t pid = fork();
	if (pid)
		return pid;
	alarm(60); /* never outlives the test */
	if (producer)
		produce(s, seed);
	else
		consume(s);
	_exit(0);
}

static void end(pid_t pid)
{
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
}

/* A last, undisturbed producer and consumer: then the replica must equal the image. */
static void finish(struct stress *s)
{
	struct tw_ring *ring = stress_ring(s);
	struct tw_ring_reader *r = NULL;
	assert_non_null(ring);
	assert_int_equal(tw_ring_reader_open(s->f->path, &r), 0);
	for (int i = 0; i < 10; i++) {
		while (!consume_some(s, r))
			;
		tw_ring_release(r);
		(void)tw_ring_poll(ring);
	}
	assert_int_equal(s->bad, 0);
	assert_memory_equal(s->image, s->replica, STRESS_BYTES);
	tw_ring_reader_destroy(r);
	tw_ring_destroy(ring);
}

static void after_any_number_of_kills_the_replica_equals_the_image(void **state)
{
	const int prot = PROT_READ | PROT_WRITE, flags = MAP_SHARED | MAP_ANONYMOUS;
	struct stress *s = mmap(NULL, sizeof(*s), prot, flags, -1, 0);
	s->f = *state;
	s->image = mmap(NULL, STRESS_BYTES, prot, flags, -1, 0);
	s->replica = mmap(NULL, STRESS_BYTES, prot, flags, -1, 0);
	struct tw_ring *ring = stress_ring(s);
	tw_ring_destroy(ring);
	unsigned seed = 1;
	pid_t producer = start(s, true, seed);
	pid_t consumer = start(s, false, 0);
	for (int round = 0; round < 150; round++) {
		usleep((useconds_t)(500 + (round * 7919) % 9000));
		if (round % 3 != 0) {
			end(producer);
			producer = start(s, true, ++seed);
		}
		if (round % 3 != 1) {
			end(consumer);
			consumer = start(s, false, 0);
		}
	}
	end(producer);
	end(consumer);
	struct tw_ring_stats stats;
	ring = stress_ring(s);
	tw_ring_stats(ring, &stats);
	tw_ring_destroy(ring);
	assert_true(stats.records > 1000);
	assert_true(stats.gaps > 10); /* or the ring was never short */
	finish(s);
	munmap(s->image, STRESS_BYTES);
	munmap(s->replica, STRESS_BYTES);
	munmap(s, sizeof(*s));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		ring_test(what_was_unread_is_still_there),
		ring_test(a_consumer_stays_through_a_takeover),
		ring_test(a_ring_of_another_size_is_replaced),
		ring_test(a_gap_that_was_open_is_announced_by_the_next_producer),
		ring_test(a_gap_that_was_not_released_comes_again),
		ring_test(what_was_in_flight_becomes_a_gap),
		ring_test(a_gap_of_a_takeover_waits_for_the_release_of_the_last_one),
		ring_test(killed_before_the_head_moved_the_number_is_used_again),
		ring_test(killed_while_it_announced_a_gap_1),
		ring_test(killed_while_it_announced_a_gap_2),
		ring_test(after_any_number_of_kills_the_replica_equals_the_image),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
