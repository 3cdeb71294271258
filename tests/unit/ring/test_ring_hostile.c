/* SPDX-License-Identifier: BSD-3-Clause */
/* The ring when the other side, or whoever could write its files, means harm. Run under ASan. */
#include "ring_fixture.h"

#include <poll.h>

static uint64_t random64(void)
{
	return (uint64_t)random() << 42 ^ (uint64_t)random() << 21 ^ (uint64_t)random();
}

static struct ring_cursor *map_cursor_page(const struct fixture *f)
{
	size_t bytes;
	return map_file(f, ".cursor", &bytes);
}

static void a_tail_ahead_of_the_head_or_going_back_gives_no_room(void **state)
{
	struct tw_ring *ring = new_ring(*state);
	struct tw_ring_reader *r = new_reader(*state);
	struct ring_cursor *cursor = map_cursor_page(*state);
	struct tw_record rec;
	/* Half way round, so that "back" is not below zero. */
	for (int i = 0; i < 16; i++) {
		publish_stamped(ring, 0, 4, 0);
		assert_int_equal(tw_ring_next(r, &rec), 1);
		tw_ring_release(r);
	}
	const uint64_t good = atomic_load(&cursor->tail);
	fill_ring(ring);
	const uint64_t bad[] = {
		0, good - 32, good + 2 * RING_BYTES, UINT64_MAX, UINT64_MAX / 2, 1ull << 40};
	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		const uint64_t before = missed(ring);
		atomic_store(&cursor->tail, bad[i]);
		assert_int_equal(publish_stamped(ring, 0, 8, 1), 1);
		assert_int_equal(missed(ring), before + 1);
	}
	/* Nothing unread was harmed. */
	atomic_store(&cursor->tail, good);
	for (uint64_t block = 0; tw_ring_next(r, &rec) == 1; block++)
		assert_true(sectors_hold(rec.payload, block * 8, 8, block));
	tw_ring_release(r);
	assert_int_equal(tw_ring_poll(ring), 0);
	munmap(cursor, RING_PAGE);
	tw_ring_reader_destroy(r);
	tw_ring_destroy(ring);
}

static void a_scribbled_cursor_page_stops_no_producer(void **state)
{
	struct tw_ring *ring = new_ring(*state);
	struct ring_cursor *cursor = map_cursor_page(*state);
	char buf[16 * TW_SECTOR_SIZE];
	memset(buf, 1, sizeof(buf));
	srandom(3);
	for (int i = 0; i < 20000; i++) {
		uint64_t *words = (uint64_t *)cursor;
		words[random() % 16] = random() % 2 ? random64() : random64() % (4 * RING_BYTES);
		tw_ring_publish(
			ring, (uint32_t)random(), random64() % (1 << 17), random64() % 17, buf);
	}
	struct tw_ring_stats stats;
	tw_ring_stats(ring, &stats);
	assert_true(stats.records + stats.missed > 10000);
	munmap(cursor, RING_PAGE);
	tw_ring_destroy(ring);
}

/* Opens the ring as a consumer and does all that a consumer does, within bounds. */
static void consume_whatever(const struct fixture *f)
{
	struct tw_ring_reader *r = NULL;
	struct tw_record rec;
	unsigned sum = 0;
	int ret = tw_ring_reader_open(f->path, &r);
	if (ret) {
		assert_true(ret == -EBADMSG || ret == -ENOENT);
		return;
	}
	for (int i = 0; i < 4096 && (ret = tw_ring_next(r, &rec)) == 1; i++) {
		const size_t bytes = rec.payload ? rec.nsectors * TW_SECTOR_SIZE : 0;
		assert_true(bytes <= RING_BYTES);
		assert_true(rec.nsectors == 0 ||
			    rec.sector + rec.nsectors <= DISK_BYTES / TW_SECTOR_SIZE);
		for (size_t b = 0; b < bytes; b++)
			sum += ((const unsigned char *)rec.payload)[b];
		if (rec.flags & TW_RECORD_GAP) {
			struct ranges ranges = taken_gap(r);
			for (unsigned g = 0; g < ranges.count && g < RANGES_MAX; g++)
				assert_true(ranges.at[g].sector + ranges.at[g].nsectors <=
					    DISK_BYTES / TW_SECTOR_SIZE);
		}
	}
	assert_true(ret == 0 || ret == -EBADMSG);
	(void)tw_ring_arm(r);
	tw_ring_disarm(r);
	tw_ring_reader_destroy(r);
	*(volatile unsigned *)&sum = sum;
}

static void random_bytes_in_the_ring_give_an_error_and_no_harm(void **state)
{
	const struct fixture *f = *state;
	struct tw_ring *ring = new_ring(f);
	size_t bytes;
	for (int i = 0; i < 12; i++)
		publish_stamped(ring, 64, 8, 1);
	unsigned char *map = map_file(f, "", &bytes);
	unsigned char *good = malloc(bytes);
	memcpy(good, map, bytes);
	srandom(4);
	const size_t data = bytes - RING_BYTES;
	for (int round = 0; round < 3000; round++) {
		memcpy(map, good, bytes);
		const int flips = 1 + (int)(random() % 16);
		for (int i = 0; i < flips; i++) {
			/* Header, producer page and the headers of records are worth most. */
			const size_t where[] = {(size_t)random() % 48,
				RING_PAGE + (size_t)random() % 48,
				data + (size_t)random() % 12 * (32 + 4096) + (size_t)random() % 32,
				(size_t)random() % bytes};
			map[where[random() % 4]] = (unsigned char)random();
		}
		consume_whatever(f);
	}
	for (int round = 0; round < 200; round++) {
		memcpy(map, good, bytes);
		for (size_t i = data; i + 8 <= bytes; i += 8)
			memcpy(map + i, &(uint64_t){random64()}, 8);
		consume_whatever(f);
	}
	free(good);
	munmap(map, bytes);
	tw_ring_destroy(ring);
}

static void a_number_that_is_left_out_is_noticed(void **state)
{
	const struct fixture *f = *state;
	struct tw_ring *ring = new_ring(f);
	struct tw_ring_reader *r = new_reader(f);
	struct tw_record rec;
	publish_stamped(ring, 0, 1, 1);
	publish_stamped(ring, 0, 1, 1);
	size_t bytes;
	unsigned char *map = map_file(f, "", &bytes);
	map[bytes - RING_BYTES + sizeof(struct ring_record) + TW_SECTOR_SIZE]++;
	assert_int_equal(tw_ring_next(r, &rec), 1);
	assert_int_equal(tw_ring_next(r, &rec), -EBADMSG);
	munmap(map, bytes);
	tw_ring_reader_destroy(r);
	tw_ring_destroy(ring);
}

static void a_gap_with_a_scribbled_map_stays_within_the_disk(void **state)
{
	const struct fixture *f = *state;
	struct tw_ring *ring = new_ring(f);
	struct tw_ring_reader *r = new_reader(f);
	fill_ring(ring);
	drain_to_gap(r);
	assert_int_equal(tw_ring_poll(ring), 0);
	tw_ring_reader_destroy(r);
	size_t bytes;
	unsigned char *map = map_file(f, "", &bytes);
	memset(map + 3 * RING_PAGE, 0xff, bytes - RING_BYTES - 3 * RING_PAGE);
	consume_whatever(f);
	munmap(map, bytes);
	tw_ring_destroy(ring);
}

static void a_file_of_another_size_than_its_header_says_is_refused(void **state)
{
	const struct fixture *f = *state;
	struct tw_ring *ring = new_ring(f);
	struct tw_ring_reader *r = NULL;
	struct stat st;
	tw_ring_destroy(ring);
	assert_int_equal(stat(f->path, &st), 0);
	const off_t sizes[] = {st.st_size + 4096, st.st_size - 4096, 4096, 48, 47, 1, 0};
	for (size_t i = 0; i < sizeof(sizes) / sizeof(*sizes); i++) {
		assert_int_equal(truncate(f->path, sizes[i]), 0);
		assert_int_equal(tw_ring_reader_open(f->path, &r), -EBADMSG);
	}
}

static void a_damaged_ring_is_made_anew_by_the_next_producer(void **state)
{
	const struct fixture *f = *state;
	struct tw_ring *ring = new_ring(f);
	publish_stamped(ring, 0, 8, 1);
	tw_ring_destroy(ring);
	size_t bytes;
	unsigned char *map = map_file(f, "", &bytes);
	struct ring_producer *producer = (struct ring_producer *)(map + RING_PAGE);
	const uint64_t good = atomic_load(&producer->head);
	const uint64_t bad[] = {good + 1, UINT64_MAX, RING_BYTES * 2 + good};
	unsigned char id[16];
	memcpy(id, map + 32, 16);
	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		atomic_store(&producer->head, bad[i]);
		ring = new_ring(f);
		publish_stamped(ring, 0, 8, 2);
		struct tw_ring_reader *r = new_reader(f);
		struct tw_record rec;
		assert_memory_not_equal(tw_ring_reader_id(r), id, 16);
		assert_int_equal(tw_ring_next(r, &rec), 1);
		assert_int_equal(rec.sequence, 1);
		memcpy(id, tw_ring_reader_id(r), 16);
		tw_ring_reader_destroy(r);
		tw_ring_destroy(ring);
		munmap(map, bytes);
		map = map_file(f, "", &bytes);
		producer = (struct ring_producer *)(map + RING_PAGE);
	}
	munmap(map, bytes);
}

static void a_fifo_that_never_falls_silent_does_not_hold_the_consumer(void **state)
{
	const struct fixture *f = *state;
	struct tw_ring *ring = new_ring(f);
	struct tw_ring_reader *r = new_reader(f);
	char noise[4096] = {0};
	while (write(tw_ring_bell_fd(r), noise, sizeof(noise)) > 0)
		;
	/* The bell is full, and ringing it must not wait. */
	(void)tw_ring_arm(r);
	publish_stamped(ring, 0, 1, 0);
	tw_ring_disarm(r);
	tw_ring_reader_destroy(r);
	tw_ring_destroy(ring);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		ring_test(a_tail_ahead_of_the_head_or_going_back_gives_no_room),
		ring_test(a_scribbled_cursor_page_stops_no_producer),
		ring_test(random_bytes_in_the_ring_give_an_error_and_no_harm),
		ring_test(a_number_that_is_left_out_is_noticed),
		ring_test(a_gap_with_a_scribbled_map_stays_within_the_disk),
		ring_test(a_file_of_another_size_than_its_header_says_is_refused),
		ring_test(a_damaged_ring_is_made_anew_by_the_next_producer),
		ring_test(a_fifo_that_never_falls_silent_does_not_hold_the_consumer),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
