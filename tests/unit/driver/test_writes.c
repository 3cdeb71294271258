/* SPDX-License-Identifier: BSD-3-Clause */
/* What the driver does with requests: what is in the ring is what reached the image, in its order. */
#include "driver_fixture.h"

static struct disk *open_disk(struct fixture *f, const char *spec)
{
	make_ring_dir(f);
	struct disk *disk = disk_create(f->host, spec, f->image, 0);
	assert_non_null(disk);
	return disk;
}

/* --- one write --- */

struct told {
	struct tw_ring_reader *reader;
	bool was_there;
};

static void guest_is_told(void *arg, int error)
{
	struct told *told = arg;
	struct tw_record record;
	assert_int_equal(error, 0);
	told->was_there = tw_ring_next(told->reader, &record) == 1 &&
		record.flags == TW_RECORD_PAYLOAD && record.sector == 7 && record.nsectors == 3 &&
		((const char *)record.payload)[3 * 512 - 1] == 'x';
}

static void a_write_is_in_the_ring_when_the_guest_is_told(void **state)
{
	struct fixture *f = *state;
	struct disk *disk = open_disk(f, "vm");
	struct told told = {open_reader(f, "vm"), false};
	char buf[3 * 512];
	memset(buf, 'x', sizeof(buf));
	disk_submit(disk, TD_OP_WRITE, 7, &(struct segment){buf, 3}, 1, guest_is_told, &told);
	disk_drain(disk);
	assert_true(told.was_there);
	tw_ring_reader_destroy(told.reader);
}

static void what_is_not_a_write_passes_and_leaves_nothing(void **state)
{
	struct fixture *f = *state;
	struct disk *disk = open_disk(f, "vm");
	struct tw_ring_reader *reader = open_reader(f, "vm");
	struct wish read = {0, 1}, status = {0, 1};
	char buf[512], expected[512];
	int fd = open(f->image, O_RDONLY | O_CLOEXEC);
	assert_int_equal(pread(fd, expected, 512, 5 * 512), 512);
	close(fd);
	disk_submit(disk, TD_OP_READ, 5, &(struct segment){buf, 1}, 1, granted, &read);
#ifdef TD_BLOCK_STATE_NONE
	disk_submit(disk, TD_OP_BLOCK_STATUS, 5, &(struct segment){buf, 1}, 1, granted, &status);
#else
	status.error = 0;
#endif
	disk_drain(disk);
	assert_int_equal(read.error, 0);
	assert_int_equal(status.error, 0);
	assert_memory_equal(buf, expected, 512);
	follow(f, reader);
	assert_int_equal(f->records, 0);
	assert_int_equal(disk_stat(disk, "writes"), 0);
	tw_ring_reader_destroy(reader);
}

static void each_segment_and_each_part_of_one_is_a_record(void **state)
{
	struct fixture *f = *state;
	struct disk *disk = open_disk(f, "vm");
	struct tw_ring_reader *reader = open_reader(f, "vm");
	struct wish wish = {0, 1};
	char buf[16 * 512];
	memset(buf, 'y', sizeof(buf));
	const struct segment segments[] = {{buf, 8}, {buf + 4096, 5}, {buf + 4096 + 5 * 512, 3}};
	disk_submit(disk, TD_OP_WRITE, 100, segments, 3, granted, &wish);
	disk_drain(disk);
	follow(f, reader);
	assert_int_equal(f->records, 3);
	disk_faults(disk)->split = 2;
	disk_submit(disk, TD_OP_WRITE, 1000, segments, 3, granted, &wish);
	disk_drain(disk);
	assert_int_equal(wish.done, 2);
	assert_int_equal(wish.error, 0);
	follow(f, reader);
	assert_int_equal(f->records, 3 + 4 + 3 + 2);
	assert_int_equal(f->ranges, 0);
	assert_int_equal(disk_stat(disk, "in_flight"), 0);
	check_replica(f);
	tw_ring_reader_destroy(reader);
}

/* --- errors --- */

static void a_write_that_failed_is_not_in_the_ring(void **state)
{
	struct fixture *f = *state;
	struct disk *disk = open_disk(f, "vm");
	struct tw_ring_reader *reader = open_reader(f, "vm");
	disk_faults(disk)->error_every = 3;
	for (unsigned i = 1; i <= 30; i++)
		assert_int_equal(write_sectors(disk, i * 8, 8, (int)i), i % 3 ? 0 : -EIO);
	follow(f, reader);
	assert_int_equal(f->records, 20);
	assert_int_equal(disk_stat(disk, "failed"), 10);
	check_replica(f);
	tw_ring_reader_destroy(reader);
}

static void of_a_request_that_failed_in_one_segment_the_others_are_there(void **state)
{
	struct fixture *f = *state;
	struct disk *disk = open_disk(f, "vm");
	struct tw_ring_reader *reader = open_reader(f, "vm");
	struct wish wish = {0, 1};
	char buf[4 * 512];
	memset(buf, 'z', sizeof(buf));
	const struct segment segments[] = {{buf, 1}, {buf, 1}, {buf, 1}, {buf, 1}};
	disk_faults(disk)->error_every = 3;
	disk_submit(disk, TD_OP_WRITE, 50, segments, 4, granted, &wish);
	disk_drain(disk);
	assert_int_equal(wish.error, -EIO);
	follow(f, reader);
	assert_int_equal(f->records, 3);
	check_replica(f);
	tw_ring_reader_destroy(reader);
}

static void what_tapdisk_issues_again_is_there_once(void **state)
{
	struct fixture *f = *state;
	struct disk *disk = open_disk(f, "vm");
	struct tw_ring_reader *reader = open_reader(f, "vm");
	disk_faults(disk)->busy_every = 2;
	disk_faults(disk)->again_every = 3;
	for (unsigned i = 1; i <= 40; i++)
		assert_int_equal(write_sectors(disk, i * 16, 16, (int)i), 0);
	follow(f, reader);
	assert_int_equal(f->records, 40);
	assert_true(disk_stat(disk, "failed") >= 40);
	check_replica(f);
	tw_ring_reader_destroy(reader);
}

/* --- overlapping --- */

static void of_two_that_overlap_the_second_to_come_back_is_read_again(void **state)
{
	struct fixture *f = *state;
	struct disk *disk = open_disk(f, "vm");
	struct tw_ring_reader *reader = open_reader(f, "vm");
	struct wish wish = {0, 1};
	char a[8 * 512], b[8 * 512], apart[512];
	memset(a, 'a', sizeof(a));
	memset(b, 'b', sizeof(b));
	memset(apart, 'c', sizeof(apart));
	disk_submit(disk, TD_OP_WRITE, 16, &(struct segment){a, 8}, 1, granted, &wish);
	disk_submit(disk, TD_OP_WRITE, 20, &(struct segment){b, 8}, 1, granted, &wish);
	disk_submit(disk, TD_OP_WRITE, 28, &(struct segment){apart, 1}, 1, granted, &wish);
	disk_drain(disk);
	follow(f, reader);
	assert_int_equal(f->records, 3);
	assert_int_equal(f->gaps, 1);
	assert_int_equal(disk_stat(disk, "unsure"), 1);
	check_replica(f);
	tw_ring_reader_destroy(reader);
}

static void one_that_failed_over_one_that_did_not_is_read_again(void **state)
{
	struct fixture *f = *state;
	struct disk *disk = open_disk(f, "vm");
	struct tw_ring_reader *reader = open_reader(f, "vm");
	struct wish good = {0, 1}, bad = {0, 1};
	char a[8 * 512], b[8 * 512];
	memset(a, 'a', sizeof(a));
	memset(b, 'b', sizeof(b));
	disk_faults(disk)->torn_every = 2;
	disk_submit(disk, TD_OP_WRITE, 16, &(struct segment){a, 8}, 1, granted, &good);
	disk_submit(disk, TD_OP_WRITE, 16, &(struct segment){b, 8}, 1, granted, &bad);
	disk_drain(disk);
	assert_int_equal(good.error, 0);
	assert_int_equal(bad.error, -EIO);
	follow(f, reader);
	assert_int_equal(f->gaps, 1);
	check_replica(f);
	tw_ring_reader_destroy(reader);
}

/* --- all at once --- */

/* A gap is announced when the one before it is done with. */
static void follow_all(struct fixture *f, struct tw_ring_reader *reader)
{
	for (unsigned i = 0; i < 4; i++) {
		follow(f, reader);
		host_step(f->host, 10);
	}
	follow(f, reader);
}

static void a_storm_leaves_a_replica(void **state)
{
	struct fixture *f = *state;
	struct disk *disk = open_disk(f, "vm");
	struct tw_ring_reader *reader = open_reader(f, "vm");
	*disk_faults(disk) = (struct faults){.busy_every = 11, .again_every = 53, .split = 5,
		.shuffle = 16};
	for (unsigned i = 0; i < 6; i++) {
		assert_int_equal(storm(f, disk, reader, 500, DEPTH, false), 0);
		follow_all(f, reader);
		check_replica(f);
	}
	assert_true(disk_stat(disk, "unsure") > 100);
	assert_true(f->gaps > 5);
	assert_int_equal(f->ranges, 0);
	tw_ring_reader_destroy(reader);
}

static void a_storm_without_overlaps_has_no_gap(void **state)
{
	struct fixture *f = *state;
	struct disk *disk = open_disk(f, "vm");
	struct tw_ring_reader *reader = open_reader(f, "vm");
	*disk_faults(disk) = (struct faults){.busy_every = 11, .again_every = 53, .split = 5,
		.shuffle = 16};
	assert_int_equal(storm(f, disk, reader, 3000, DEPTH, true), 0);
	follow(f, reader);
	check_replica(f);
	assert_true(f->records > 3000);
	assert_int_equal(f->gaps, 0);
	assert_int_equal(disk_stat(disk, "unsure"), 0);
	tw_ring_reader_destroy(reader);
}

/* The ring is full nearly always. A write that was torn may have left anything, and nothing is said of
 * it, so there are none here. */
static void a_storm_through_a_tiny_ring_with_errors(void **state)
{
	struct fixture *f = *state;
	struct disk *disk = open_disk(f, "vm,ring-size=64K");
	struct tw_ring_reader *reader = open_reader(f, "vm");
	*disk_faults(disk) = (struct faults){.error_every = 50, .busy_every = 11, .shuffle = 16};
	unsigned errors = 0;
	for (unsigned i = 0; i < 6; i++) {
		errors += storm(f, disk, reader, 500, DEPTH, false);
		while (disk_stat(disk, "gaps") && f->gaps < disk_stat(disk, "gaps"))
			follow(f, reader);
		for (unsigned k = 0; k < 20; k++) {
			host_step(f->host, 20);
			follow(f, reader);
		}
		check_replica(f);
	}
	assert_true(errors > 20);
	assert_true(f->gaps > 3);
	tw_ring_reader_destroy(reader);
}

static void more_writes_than_places_lose_nothing(void **state)
{
	struct fixture *f = *state;
	struct disk *disk = open_disk(f, "vm");
	struct tw_ring_reader *reader = open_reader(f, "vm");
	disk_faults(disk)->shuffle = 1000;
	assert_int_equal(storm(f, disk, reader, 6000, 1500, false), 0);
	follow_all(f, reader);
	check_replica(f);
	assert_true(disk_stat(disk, "shared") > 0);
	assert_int_equal(disk_stat(disk, "refused"), 0);
	assert_int_equal(disk_stat(disk, "in_flight"), 0);
	tw_ring_reader_destroy(reader);
}

/* Nobody could tell in which order they were written, should they overlap. */
static void writes_that_share_a_place_are_a_gap(void **state)
{
	struct fixture *f = *state;
	struct disk *disk = open_disk(f, "vm");
	struct tw_ring_reader *reader = open_reader(f, "vm");
	struct wish wish = {0, 1};
	char buf[512] = "x";
	for (unsigned i = 0; i < 1030; i++)
		disk_submit(disk, TD_OP_WRITE, i, &(struct segment){buf, 1}, 1, granted, &wish);
	disk_drain(disk);
	assert_int_equal(wish.done, 1030);
	assert_int_equal(disk_stat(disk, "shared"), 1030 - 1016);
	assert_int_equal(disk_stat(disk, "unsure"), 1030 - 1016);
	follow_all(f, reader);
	assert_int_equal(f->records - f->gaps, 1016);
	check_replica(f);
	tw_ring_reader_destroy(reader);
}

/* Each of its writes has another origin, as below a driver that keeps a state for each. */
struct origins {
	unsigned came, busy;
};

static void origin_is_told(td_request_t treq, int res)
{
	struct origins *origins = (struct origins *)((uintptr_t)treq.cb_data & ~(uintptr_t)0xffff);
	origins->came++;
	origins->busy += res == -EBUSY;
}

static void more_origins_than_places_are_sent_back(void **state)
{
	struct fixture *f = *state;
	struct disk *disk = open_disk(f, "vm");
	struct origins *origins = aligned_alloc(65536, 65536);
	*origins = (struct origins){0};
	char buf[512] = {0};
	/* Nothing comes back before host_step. */
	for (unsigned i = 0; i < 1100; i++)
		disk_queue_raw(disk, i * 2, 1, buf, origin_is_told, (char *)origins + i);
	assert_int_equal(origins->busy, 1100 - 1024);
	while (origins->came < 1100)
		host_step(f->host, 2);
	assert_int_equal(origins->came, 1100);
	assert_int_equal(disk_stat(disk, "refused"), 1100 - 1024);
	assert_int_equal(disk_stat(disk, "in_flight"), 0);
	free(origins);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		driver_test(a_write_is_in_the_ring_when_the_guest_is_told),
		driver_test(what_is_not_a_write_passes_and_leaves_nothing),
		driver_test(each_segment_and_each_part_of_one_is_a_record),
		driver_test(a_write_that_failed_is_not_in_the_ring),
		driver_test(of_a_request_that_failed_in_one_segment_the_others_are_there),
		driver_test(what_tapdisk_issues_again_is_there_once),
		driver_test(of_two_that_overlap_the_second_to_come_back_is_read_again),
		driver_test(one_that_failed_over_one_that_did_not_is_read_again),
		driver_test(a_storm_leaves_a_replica),
		driver_test(a_storm_without_overlaps_has_no_gap),
		driver_test(a_storm_through_a_tiny_ring_with_errors),
		driver_test(more_writes_than_places_lose_nothing),
		driver_test(writes_that_share_a_place_are_a_gap),
		driver_test(more_origins_than_places_are_sent_back),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
