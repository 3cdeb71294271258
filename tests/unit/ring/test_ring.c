/* SPDX-License-Identifier: BSD-3-Clause */
/* The ring while both sides live and behave. */
#include "ring-producer.h"
#include "ring_fixture.h"

#include <poll.h>
#include <sys/wait.h>

static bool rings(const struct tw_ring_reader *r)
{
	struct pollfd pfd = {.fd = tw_ring_bell_fd(r), .events = POLLIN};
	return poll(&pfd, 1, 0) == 1 && (pfd.revents & POLLIN);
}

static void a_record_arrives_as_it_was_published(void **state)
{
	struct tw_ring *ring = new_ring(*state);
	struct tw_ring_reader *r = new_reader(*state);
	struct tw_record rec;
	assert_int_equal(tw_ring_next(r, &rec), 0);
	publish_stamped(ring, 1000, 8, 7);
	tw_ring_publish(ring, TW_RECORD_FLUSH, 0, 0, NULL);
	tw_ring_publish(ring, TW_RECORD_ZEROES | TW_RECORD_DISCARD, 5, 3, NULL);

	assert_int_equal(tw_ring_next(r, &rec), 1);
	assert_int_equal(rec.sequence, 1);
	assert_int_equal(rec.flags, TW_RECORD_PAYLOAD);
	assert_int_equal(rec.sector, 1000);
	assert_int_equal(rec.nsectors, 8);
	assert_true(rec.time_ns > 1600000000ull * 1000000000ull);
	assert_true(sectors_hold(rec.payload, 1000, 8, 7));

	assert_int_equal(tw_ring_next(r, &rec), 1);
	assert_int_equal(rec.sequence, 2);
	assert_int_equal(rec.flags, TW_RECORD_FLUSH);
	assert_int_equal(rec.nsectors, 0);

	assert_int_equal(tw_ring_next(r, &rec), 1);
	assert_int_equal(rec.sequence, 3);
	assert_int_equal(rec.flags, TW_RECORD_ZEROES | TW_RECORD_DISCARD);
	assert_null(rec.payload);
	assert_int_equal(tw_ring_next(r, &rec), 0);
	tw_ring_reader_destroy(r);
	tw_ring_destroy(ring);
}

static void records_survive_many_wraps(void **state)
{
	struct tw_ring *ring = new_ring(*state);
	struct tw_ring_reader *r = new_reader(*state);
	uint64_t sequence = 0;
	srandom(1);
	for (uint64_t i = 0; i < 5000; i++) {
		const uint64_t n = 1 + (uint64_t)random() % 30;
		const uint64_t sector = (uint64_t)random() % 10000;
		struct tw_record rec;
		publish_stamped(ring, sector, n, i);
		assert_int_equal(tw_ring_next(r, &rec), 1);
		assert_int_equal(rec.sequence, ++sequence);
		assert_int_equal(rec.nsectors, n);
		assert_true(sectors_hold(rec.payload, sector, n, i));
		tw_ring_release(r);
		assert_int_equal(tw_ring_reader_backlog(r), 0);
	}
	assert_int_equal(missed(ring), 0);
	tw_ring_reader_destroy(r);
	tw_ring_destroy(ring);
}

static void a_payload_stays_until_it_is_released(void **state)
{
	struct tw_ring *ring = new_ring(*state);
	struct tw_ring_reader *r = new_reader(*state);
	struct tw_record first;
	publish_stamped(ring, 100, 8, 42);
	assert_int_equal(tw_ring_next(r, &first), 1);
	fill_ring(ring);
	assert_true(sectors_hold(first.payload, 100, 8, 42));
	tw_ring_reader_destroy(r);
	tw_ring_destroy(ring);
}

static void a_long_request_is_split(void **state)
{
	struct tw_ring *ring = new_ring(*state);
	struct tw_ring_reader *r = new_reader(*state);
	struct tw_record rec;
	uint64_t next = 64;
	publish_stamped(ring, 64, 100, 9);
	while (tw_ring_next(r, &rec) == 1) {
		assert_int_equal(rec.sector, next);
		assert_true(rec.nsectors * TW_SECTOR_SIZE < RING_BYTES / 4);
		assert_true(sectors_hold(rec.payload, next, rec.nsectors, 9));
		next += rec.nsectors;
		/* Between two blocks. */
		assert_true(next == 164 || next % 8 == 0);
	}
	assert_int_equal(next, 164);
	tw_ring_reader_destroy(r);
	tw_ring_destroy(ring);
}

static void what_lies_beyond_the_disk_is_cut_off(void **state)
{
	struct tw_ring *ring = new_ring(*state);
	struct tw_ring_reader *r = new_reader(*state);
	const uint64_t end = DISK_BYTES / TW_SECTOR_SIZE;
	struct tw_record rec;
	tw_ring_publish(ring, TW_RECORD_ZEROES, end, 8, NULL);
	tw_ring_publish(ring, TW_RECORD_ZEROES, UINT64_MAX, UINT64_MAX, NULL);
	tw_ring_publish(ring, TW_RECORD_ZEROES, end - 2, 8, NULL);
	assert_int_equal(tw_ring_next(r, &rec), 1);
	assert_int_equal(rec.sector, end - 2);
	assert_int_equal(rec.nsectors, 2);
	assert_int_equal(tw_ring_next(r, &rec), 0);
	tw_ring_reader_destroy(r);
	tw_ring_destroy(ring);
}

static void what_does_not_fit_is_announced_as_a_gap(void **state)
{
	struct tw_ring *ring = new_ring(*state);
	struct tw_ring_reader *r = new_reader(*state);
	struct tw_record rec;
	const uint64_t lost = fill_ring(ring);
	publish_stamped(ring, 8000, 1, 1);  /* one sector: its whole block */
	publish_stamped(ring, 8008, 16, 1); /* the two blocks after it */
	publish_stamped(ring, DISK_BYTES / TW_SECTOR_SIZE - 1, 1, 1);
	assert_int_equal(tw_ring_poll(ring), 1);
	assert_int_equal(drain_to_gap(r), 0);
	assert_int_equal(tw_ring_take_gap(r, add_range, NULL), -EINVAL);

	assert_int_equal(tw_ring_poll(ring), 0);
	assert_int_equal(drain_to_gap(r), 1);
	struct ranges ranges = taken_gap(r);
	assert_int_equal(ranges.count, 3);
	assert_range(ranges, 0, lost * 8, 8);
	assert_range(ranges, 1, 8000, 24);
	assert_range(ranges, 2, DISK_BYTES / TW_SECTOR_SIZE - 8, 8);
	tw_ring_release(r);

	publish_stamped(ring, 8, 8, 5);
	assert_int_equal(tw_ring_next(r, &rec), 1);
	assert_int_equal(rec.flags, TW_RECORD_PAYLOAD);
	assert_int_equal(tw_ring_next(r, &rec), 0);
	tw_ring_reader_destroy(r);
	tw_ring_destroy(ring);
}

/* If a later write took the room that an earlier one did not have, their order would be lost. */
static void after_a_missed_write_all_wait_for_the_gap_record(void **state)
{
	struct tw_ring *ring = new_ring(*state);
	struct tw_ring_reader *r = new_reader(*state);
	struct tw_record rec;
	fill_ring(ring);
	assert_int_equal(tw_ring_next(r, &rec), 1);
	assert_int_equal(tw_ring_next(r, &rec), 1);
	tw_ring_release(r);
	const uint64_t before = missed(ring);
	assert_int_equal(publish_stamped(ring, 400, 1, 1), 1);
	assert_int_equal(missed(ring), before + 1);
	assert_int_equal(drain_to_gap(r), 0);
	assert_int_equal(publish_stamped(ring, 400, 1, 2), 0);
	assert_int_equal(tw_ring_next(r, &rec), 1);
	assert_int_equal(rec.flags, TW_RECORD_GAP);
	assert_int_equal(tw_ring_next(r, &rec), 1);
	assert_true(sectors_hold(rec.payload, 400, 1, 2));
	tw_ring_reader_destroy(r);
	tw_ring_destroy(ring);
}

/* Fills the ring, and takes the gap of the one write that found no room. */
static void next_gap_has_only_its_own(struct tw_ring *ring, struct tw_ring_reader *r)
{
	const uint64_t lost = fill_ring(ring);
	assert_int_equal(drain_to_gap(r), 0);
	assert_int_equal(tw_ring_poll(ring), 0);
	assert_int_equal(drain_to_gap(r), 1);
	struct ranges gap = taken_gap(r);
	assert_int_equal(gap.count, 1);
	assert_range(gap, 0, lost * 8, 8);
}

static void a_second_gap_waits_for_the_release_of_the_first(void **state)
{
	struct tw_ring *ring = new_ring(*state);
	struct tw_ring_reader *r = new_reader(*state);
	struct tw_record rec;
	fill_ring(ring);
	publish_stamped(ring, 80000, 8, 1);
	assert_int_equal(drain_to_gap(r), 0);
	assert_int_equal(tw_ring_poll(ring), 0);
	assert_int_equal(drain_to_gap(r), 1); /* gap 1, not released */

	const uint64_t lost = fill_ring(ring);
	publish_stamped(ring, 90000, 8, 1);
	struct ranges first = taken_gap(r);
	assert_int_equal(first.count, 2);
	assert_range(first, 1, 80000, 8);
	/* Read on without a release: no second gap record may come. */
	while (tw_ring_next(r, &rec) == 1)
		assert_false(rec.flags & TW_RECORD_GAP);
	assert_int_equal(tw_ring_poll(ring), 1);

	tw_ring_release(r);
	assert_int_equal(tw_ring_poll(ring), 0);
	assert_int_equal(drain_to_gap(r), 1);
	struct ranges second = taken_gap(r);
	assert_int_equal(second.count, 2);
	assert_range(second, 0, lost * 8, 8);
	assert_range(second, 1, 90000, 8);
	tw_ring_release(r);

	/* The third uses the first one's map, which must have been cleared. */
	next_gap_has_only_its_own(ring, r);
	tw_ring_reader_destroy(r);
	tw_ring_destroy(ring);
}

static void a_map_has_every_dirty_block_and_no_other(void **state)
{
	struct tw_ring *ring = new_ring(*state);
	struct tw_ring_reader *r = new_reader(*state);
	const uint64_t blocks = DISK_BYTES >> TW_RING_DIRTY_SHIFT;
	bool *dirty = calloc(blocks, 1);
	bool *seen = calloc(blocks, 1);
	struct ranges *ranges = calloc(1, sizeof(*ranges));
	dirty[fill_ring(ring)] = true;
	srandom(2);
	for (int i = 0; i < 300; i++) {
		const uint64_t sector = (uint64_t)random() % (blocks * 8 - 3000);
		const uint64_t n = 1 + (uint64_t)random() % (i % 10 ? 20 : 3000);
		tw_ring_publish(ring, TW_RECORD_ZEROES, sector, n, NULL);
		memset(dirty + sector / 8, 1, (sector + n - 1) / 8 - sector / 8 + 1);
	}
	drain_to_gap(r);
	tw_ring_poll(ring);
	assert_int_equal(drain_to_gap(r), 1);
	assert_int_equal(tw_ring_take_gap(r, add_range, ranges), 0);
	assert_true(ranges->count > 10 && ranges->count < RANGES_MAX);
	uint64_t end = 0;
	for (unsigned i = 0; i < ranges->count; i++) {
		assert_int_equal(ranges->at[i].sector % 8, 0);
		assert_true(i == 0 || ranges->at[i].sector > end); /* neighbours are joined */
		end = ranges->at[i].sector + ranges->at[i].nsectors;
		memset(seen + ranges->at[i].sector / 8, 1, ranges->at[i].nsectors / 8);
	}
	assert_memory_equal(dirty, seen, blocks);
	free(ranges);
	free(seen);
	free(dirty);
	tw_ring_reader_destroy(r);
	tw_ring_destroy(ring);
}

static uint64_t lines_of_map(const struct tw_ring *ring, uint64_t gap)
{
	const _Atomic uint64_t *summary = ring_summary(ring->base, &ring->geometry, gap);
	uint64_t n = 0;
	for (uint64_t w = 0; w < ring->geometry.summary_bytes / 8; w++)
		n += (uint64_t)__builtin_popcountll(summary[w]);
	return n;
}

/* A whole map of a large disk takes longer to clear than a guest's request may wait. */
static void a_map_is_cleared_a_part_at_a_time(void **state)
{
	enum { LINES = 32768, AT_ONCE = 256 + 63 };
	const uint64_t disk = LINES * 2ull << 20;
	const struct fixture *f = *state;
	struct tw_ring *ring;
	assert_int_equal(tw_ring_create(f->path, disk, RING_BYTES, &ring), 0);
	struct tw_ring_reader *r = new_reader(f);
	fill_ring(ring);
	tw_ring_publish(ring, TW_RECORD_ZEROES, 0, disk / TW_SECTOR_SIZE, NULL);
	assert_int_equal(drain_to_gap(r), 0);
	assert_int_equal(tw_ring_poll(ring), 0);
	assert_int_equal(drain_to_gap(r), 1);
	assert_int_equal(taken_gap(r).count, 1);
	tw_ring_release(r);

	/* The next gap waits until the map is clear; each request does a part. */
	uint64_t left = lines_of_map(ring, 1);
	unsigned requests = 0;
	assert_int_equal(left, LINES);
	for (int open = tw_ring_miss(ring, 8, 8); open; requests++) {
		open = tw_ring_publish(ring, TW_RECORD_ZEROES, 16, 8, NULL);
		const uint64_t now = lines_of_map(ring, 1);
		assert_in_range(left - now, 1, requests ? AT_ONCE : 2 * AT_ONCE);
		left = now;
	}
	assert_int_equal(left, 0);
	assert_in_range(requests, LINES / AT_ONCE, LINES / 256);
	assert_int_equal(drain_to_gap(r), 1);
	struct ranges second = taken_gap(r);
	assert_int_equal(second.count, 1);
	assert_range(second, 0, 8, 16);
	tw_ring_release(r);

	/* Nothing of the first one is in the third, which has its map. */
	next_gap_has_only_its_own(ring, r);
	tw_ring_reader_destroy(r);
	tw_ring_destroy(ring);
}

static void the_bell_rings_once_for_a_sleeper_and_not_for_the_wakeful(void **state)
{
	struct tw_ring *ring = new_ring(*state);
	struct tw_ring_reader *r = new_reader(*state);
	struct tw_ring_stats stats;
	struct tw_record rec;
	publish_stamped(ring, 0, 1, 0);
	assert_false(rings(r));
	assert_int_equal(tw_ring_arm(r), 1);
	tw_ring_disarm(r);
	assert_int_equal(tw_ring_next(r, &rec), 1);

	assert_int_equal(tw_ring_arm(r), 0);
	publish_stamped(ring, 0, 1, 0);
	assert_true(rings(r));
	publish_stamped(ring, 0, 1, 0);
	tw_ring_stats(ring, &stats);
	assert_int_equal(stats.wakeups, 1);
	tw_ring_disarm(r);
	assert_false(rings(r));
	publish_stamped(ring, 0, 1, 0);
	assert_false(rings(r));
	while (tw_ring_next(r, &rec) == 1)
		;
	assert_int_equal(tw_ring_arm(r), 0);
	publish_stamped(ring, 0, 1, 0);
	assert_true(rings(r));
	tw_ring_reader_destroy(r);

	/* The next consumer sleeps its first sleep, which the producer must not take for the last
	 * one's. */
	r = new_reader(*state);
	assert_false(rings(r));
	while (tw_ring_next(r, &rec) == 1)
		;
	assert_int_equal(tw_ring_arm(r), 0);
	publish_stamped(ring, 0, 1, 0);
	assert_true(rings(r));
	tw_ring_reader_destroy(r);
	tw_ring_destroy(ring);
}

/* A consumer that trusts the bell alone: a wakeup that is lost would leave it asleep. */
static void sleep_until_the_end(const struct fixture *f, uint64_t records)
{
	struct tw_ring_reader *r = NULL;
	struct tw_record rec;
	if (tw_ring_reader_open(f->path, &r) != 0)
		_exit(1);
	for (uint64_t seen = 0; seen < records;) {
		struct pollfd pfd = {.fd = tw_ring_bell_fd(r), .events = POLLIN};
		if (tw_ring_arm(r) == 0 && poll(&pfd, 1, 5000) == 0)
			_exit(2);
		tw_ring_disarm(r);
		while (tw_ring_next(r, &rec) == 1)
			seen++;
		tw_ring_release(r);
	}
	_exit(0);
}

static void no_wakeup_is_lost(void **state)
{
	const uint64_t records = 5000;
	struct tw_ring *ring = new_ring(*state);
	size_t bytes;
	int status;
	struct ring_cursor *cursor = map_file(*state, ".cursor", &bytes);
	pid_t pid = fork();
	if (pid == 0)
		sleep_until_the_end(*state, records);
	for (uint64_t i = 1; i <= records; i++) {
		tw_ring_publish(ring, TW_RECORD_FLUSH, 0, 0, NULL);
		/* Wait for it mostly, so that the consumer is often just falling asleep. */
		while (i % 8 && atomic_load(&cursor->tail) < i * sizeof(struct ring_record))
			if (waitpid(pid, &status, WNOHANG) == pid)
				goto ended;
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
ended:
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
	munmap(cursor, bytes);
	tw_ring_destroy(ring);
}

static void there_is_one_producer_and_one_consumer(void **state)
{
	const struct fixture *f = *state;
	struct tw_ring *ring = new_ring(f), *other = NULL;
	struct tw_ring_reader *r = new_reader(f), *second = NULL;
	assert_int_equal(tw_ring_create(f->path, DISK_BYTES, RING_BYTES, &other), -EBUSY);
	assert_int_equal(tw_ring_reader_open(f->path, &second), -EBUSY);
	assert_int_equal(tw_ring_reader_producer_alive(r), 1);
	tw_ring_destroy(ring);
	assert_int_equal(tw_ring_reader_producer_alive(r), 0);
	tw_ring_reader_destroy(r);
	r = new_reader(f);
	assert_int_equal(tw_ring_reader_disk_bytes(r), DISK_BYTES);
	tw_ring_reader_destroy(r);
}

static void a_file_that_is_no_ring_is_left_alone(void **state)
{
	const struct fixture *f = *state;
	struct tw_ring *ring = NULL;
	struct tw_ring_reader *r = NULL;
	char content[8192] = "a guest's image";
	char back[sizeof(content)];
	assert_int_equal(tw_ring_reader_open(f->path, &r), -ENOENT);
	int fd = open(f->path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	assert_int_equal(write(fd, content, sizeof(content)), sizeof(content));
	assert_int_equal(tw_ring_create(f->path, DISK_BYTES, RING_BYTES, &ring), -EEXIST);
	assert_int_equal(tw_ring_reader_open(f->path, &r), -EBADMSG);
	assert_int_equal(pread(fd, back, sizeof(back), 0), sizeof(back));
	assert_memory_equal(content, back, sizeof(back));
	close(fd);
	assert_int_equal(
		tw_ring_create("/nonexistent/ring", DISK_BYTES, RING_BYTES, &ring), -ENOENT);
}

static void what_the_producer_cannot_tell_is_a_gap(void **state)
{
	const struct fixture *f = *state;
	struct tw_ring *ring = new_ring(f);
	struct tw_ring_reader *r = new_reader(f);
	struct tw_record rec;
	char block[4096] = "x";
	tw_ring_publish(ring, 0, 80, 8, block);
	assert_int_equal(tw_ring_miss(ring, 800, 8), 0);
	tw_ring_publish(ring, 0, 88, 8, block);
	/* In its place, while there is room. */
	assert_int_equal(tw_ring_next(r, &rec), 1);
	assert_int_equal(tw_ring_next(r, &rec), 1);
	assert_int_equal(rec.flags, TW_RECORD_GAP);
	struct ranges ranges = taken_gap(r);
	assert_int_equal(ranges.count, 1);
	assert_range(ranges, 0, 800, 8);
	assert_int_equal(tw_ring_next(r, &rec), 1);
	assert_int_equal(rec.sector, 88);
	tw_ring_release(r);
	/* Up to the end of the disk, and nothing of what is beyond. */
	const uint64_t end = DISK_BYTES / TW_SECTOR_SIZE;
	assert_int_equal(tw_ring_miss(ring, end, 8), 0);
	assert_int_equal(tw_ring_miss(ring, 5, 0), 0);
	assert_int_equal(tw_ring_next(r, &rec), 0);
	assert_int_equal(tw_ring_miss(ring, end - 8, UINT64_MAX), 0);
	assert_int_equal(tw_ring_next(r, &rec), 1);
	ranges = taken_gap(r);
	assert_int_equal(ranges.count, 1);
	assert_range(ranges, 0, end - 8, 8);
	tw_ring_reader_destroy(r);
	tw_ring_destroy(ring);
}

static void the_files_are_for_their_owner(void **state)
{
	const struct fixture *f = *state;
	struct tw_ring *ring = new_ring(f);
	static const char *const suffixes[] = {"", ".cursor", ".bell", ".interest"};
	for (int i = 0; i < 3; i++) {
		char path[128];
		struct stat st;
		snprintf(path, sizeof(path), "%s%s", f->path, suffixes[i]);
		assert_int_equal(stat(path, &st), 0);
		assert_int_equal(st.st_mode & 0777, 0600);
		/* Nothing in it is a hole that could turn out not to fit. */
		if (S_ISREG(st.st_mode))
			assert_true(st.st_blocks * 512 >= st.st_size);
	}
	tw_ring_destroy(ring);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		ring_test(a_record_arrives_as_it_was_published),
		ring_test(records_survive_many_wraps),
		ring_test(a_payload_stays_until_it_is_released),
		ring_test(a_long_request_is_split),
		ring_test(what_lies_beyond_the_disk_is_cut_off),
		ring_test(what_does_not_fit_is_announced_as_a_gap),
		ring_test(after_a_missed_write_all_wait_for_the_gap_record),
		ring_test(a_second_gap_waits_for_the_release_of_the_first),
		ring_test(a_map_has_every_dirty_block_and_no_other),
		ring_test(a_map_is_cleared_a_part_at_a_time),
		ring_test(what_the_producer_cannot_tell_is_a_gap),
		ring_test(the_bell_rings_once_for_a_sleeper_and_not_for_the_wakeful),
		ring_test(no_wakeup_is_lost),
		ring_test(there_is_one_producer_and_one_consumer),
		ring_test(a_file_that_is_no_ring_is_left_alone),
		ring_test(the_files_are_for_their_owner),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
