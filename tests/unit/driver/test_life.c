/* SPDX-License-Identifier: BSD-3-Clause */
/* How the driver is opened, paused, closed and killed: no failure of capture is one of the guest's. */
#include "driver_fixture.h"

#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>

static struct disk *open_disk(struct fixture *f, const char *spec)
{
	struct disk *disk = disk_create(f->host, spec, f->image, 0);
	assert_non_null(disk);
	return disk;
}

static bool exists(const struct fixture *f, const char *name)
{
	char path[160];
	snprintf(path, sizeof(path), "%s/%s", f->dir, name);
	return access(path, F_OK) == 0;
}

/* Until the driver has found a ring, or too much time has passed. */
static void wait_attached(struct fixture *f, struct disk *disk, uint64_t times)
{
	for (unsigned i = 0; i < 1000 && disk_stat(disk, "attached") < times; i++)
		host_step(f->host, 10);
	assert_int_equal(disk_stat(disk, "attached"), times);
}

/* --- pausing --- */

static void a_pause_gives_the_ring_up_and_takes_it_again(void **state)
{
	struct fixture *f = *state;
	make_ring_dir(f);
	struct disk *disk = open_disk(f, "vm");
	struct tw_ring_reader *reader = open_reader(f, "vm");
	assert_int_equal(write_sectors(disk, 8, 8, 'a'), 0);
	disk_pause(disk);
	host_step(f->host, 0);
	assert_true(disk_paused(disk));
	assert_false(tw_ring_reader_producer_alive(reader));
	/* Held back, not lost. */
	struct wish wish = {0, 1};
	char buf[4096];
	memset(buf, 'b', sizeof(buf));
	disk_submit(disk, TD_OP_WRITE, 80, &(struct segment){buf, 8}, 1, granted, &wish);
	host_step(f->host, 5);
	assert_int_equal(wish.done, 0);
	assert_int_equal(disk_resume(disk, NULL), 0);
	disk_drain(disk);
	assert_int_equal(wish.error, 0);
	assert_true(tw_ring_reader_producer_alive(reader));
	follow(f, reader);
	assert_int_equal(f->records, 2);
	check_replica(f);
	tw_ring_reader_destroy(reader);
}

static void pauses_under_load_lose_nothing(void **state)
{
	struct fixture *f = *state;
	make_ring_dir(f);
	struct disk *disk = open_disk(f, "vm,ring-size=256K");
	struct tw_ring_reader *reader = open_reader(f, "vm");
	*disk_faults(disk) = (struct faults){.busy_every = 13, .split = 7, .shuffle = 8};
	struct storm s = {f, disk, 3000, DEPTH, 0, SECTORS, reader, false};
	storm_begin(&s);
	unsigned pauses = 0;
	for (unsigned step = 0; disk_waiting(disk); step++) {
		host_step(f->host, 2);
		if (step % 8 == 4)
			disk_pause(disk);
		if (disk_paused(disk)) {
			pauses++;
			follow(f, reader);
			assert_int_equal(disk_resume(disk, NULL), 0);
		}
	}
	for (unsigned i = 0; i < 20; i++) {
		host_step(f->host, 20);
		follow(f, reader);
	}
	assert_int_equal(s.errors, 0);
	assert_true(pauses > 10);
	check_replica(f);
	tw_ring_reader_destroy(reader);
}

static void a_disk_of_another_size_gets_another_ring(void **state)
{
	struct fixture *f = *state;
	make_ring_dir(f);
	struct disk *disk = open_disk(f, "vm");
	struct tw_ring_reader *reader = open_reader(f, "vm");
	uint8_t id[16];
	memcpy(id, tw_ring_reader_id(reader), sizeof(id));
	tw_ring_reader_destroy(reader);
	disk_pause(disk);
	host_step(f->host, 0);
	assert_int_equal(truncate(f->image, 2 * BYTES), 0);
	assert_int_equal(truncate(f->replica, 2 * BYTES), 0);
	assert_int_equal(disk_resume(disk, NULL), 0);
	assert_int_equal(write_sectors(disk, 2 * SECTORS - 8, 8, 'e'), 0);
	reader = open_reader(f, "vm");
	assert_memory_not_equal(tw_ring_reader_id(reader), id, sizeof(id));
	assert_int_equal(tw_ring_reader_disk_bytes(reader), 2 * BYTES);
	follow(f, reader);
	check_replica(f);
	tw_ring_reader_destroy(reader);
}

/* --- closing --- */

static void a_close_in_the_middle_leaves_a_gap_to_the_next_open(void **state)
{
	struct fixture *f = *state;
	make_ring_dir(f);
	struct disk *disk = open_disk(f, "vm");
	struct tw_ring_reader *reader = open_reader(f, "vm");
	struct wish wish = {0, 1};
	char buf[4][4096];
	for (unsigned i = 0; i < 4; i++) {
		memset(buf[i], 'A' + (int)i, sizeof(buf[i]));
		disk_submit(disk, TD_OP_WRITE, 1000 * i, &(struct segment){buf[i], 8}, 1, granted,
			&wish);
	}
	disk_close_hard(disk);
	disk_drain(disk);
	assert_int_equal(wish.done, 4);
	assert_int_equal(wish.error, 0);
	follow(f, reader);
	assert_int_equal(f->records, 0);
	disk_destroy(disk);
	disk = open_disk(f, "vm");
	follow(f, reader);
	assert_int_equal(f->gaps, 1);
	check_replica(f);
	tw_ring_reader_destroy(reader);
}

/* kill -9 of a tapdisk with more requests in flight than the ring has slots to note them. */
static void what_was_in_flight_in_a_killed_tapdisk_is_a_gap(void **state)
{
	struct fixture *f = *state;
	make_ring_dir(f);
	host_destroy(f->host);
	f->host = NULL;
	for (unsigned turn = 0; turn < 6; turn++) {
		pid_t child = fork();
		if (child == 0) {
			f->host = host_create(turn);
			struct disk *disk = disk_create(f->host, "vm,ring-size=16M", f->image, 0);
			disk_faults(disk)->shuffle = 64;
			storm(f, disk, NULL, 1u << 30, turn % 2 ? DEPTH : 600, turn % 2);
			_exit(0);
		}
		usleep(60000);
		kill(child, SIGKILL);
		assert_int_equal(waitpid(child, NULL, 0), child);
		f->host = host_create(turn);
		struct disk *disk = open_disk(f, "vm,ring-size=16M");
		struct tw_ring_reader *reader = open_reader(f, "vm");
		for (unsigned i = 0; i < 5; i++) {
			follow(f, reader);
			host_step(f->host, 30);
		}
		follow(f, reader);
		check_replica(f);
		tw_ring_reader_destroy(reader);
		disk_destroy(disk);
		host_destroy(f->host);
		f->host = NULL;
	}
	assert_true(f->gaps > 0);
	assert_true(f->records > 100);
}

static void a_chain_that_cannot_be_opened_leaves_nothing_behind(void **state)
{
	struct fixture *f = *state;
	make_ring_dir(f);
	assert_null(disk_create(f->host, "vm", "/nonexistent/image", 0));
	assert_int_equal(errno, ENOENT);
	assert_false(exists(f, "rings/vm.ring"));
}

/* --- without a ring --- */

static void a_read_only_disk_is_not_captured(void **state)
{
	struct fixture *f = *state;
	make_ring_dir(f);
	struct disk *disk = disk_create(f->host, "vm", f->image, TD_OPEN_RDONLY);
	assert_non_null(disk);
	struct wish wish = {0, 1};
	char buf[512];
	disk_submit(disk, TD_OP_READ, 5, &(struct segment){buf, 1}, 1, granted, &wish);
	disk_drain(disk);
	assert_int_equal(wish.error, 0);
	assert_int_equal(write_sectors(disk, 5, 1, 'x'), -EPERM);
	assert_false(exists(f, "rings/vm.ring"));
	char stats[1024];
	disk_stats(disk, stats, sizeof(stats));
	assert_non_null(strstr(stats, "state read only\n"));
}

static void a_bad_name_captures_nothing_and_fails_nothing(void **state)
{
	static const char *const bad[] = {"", ".", "..", "../vm", "a/b", ".hidden", "a b", "a\"b",
		"vm,", "vm,ring-size=", "vm,ring-size=x", "vm,ring-size=1", "vm,ring-size=64MB",
		"vm,ring-size=-64M", "vm,ring-size=99999999999G", "vm,size=64M", "/etc/passwd",
		"n2345678901234567890123456789012345678901234567890123456789012345"};
	struct fixture *f = *state;
	make_ring_dir(f);
	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		unsigned before, after;
		(void)host_said(f->host, &before);
		struct disk *disk = open_disk(f, bad[i]);
		assert_int_equal(write_sectors(disk, i, 1, 'x'), 0);
		assert_int_equal(disk_stat(disk, "uncaught"), 1);
		assert_non_null(strstr(host_said(f->host, &after), "not captured"));
		assert_int_equal(after, before + 1);
		disk_destroy(disk);
	}
	assert_false(exists(f, "rings/vm.ring"));
	assert_false(exists(f, "ring"));
}

static void the_longest_name_and_every_size_are_good(void **state)
{
	static const char *const good[] = {"vm", "vm,ring-size=64K", "vm,ring-size=1M", "v.m_-9",
		"n234567890123456789012345678901234567890123456789012345678901234"};
	struct fixture *f = *state;
	for (size_t i = 0; i < sizeof(good) / sizeof(*good); i++) {
		char name[80];
		snprintf(name, sizeof(name), "%.*s", (int)strcspn(good[i], ","), good[i]);
		make_ring_dir(f);
		struct disk *disk = open_disk(f, good[i]);
		assert_int_equal(disk_stat(disk, "attached"), 1);
		disk_destroy(disk);
	}
}

static void a_directory_that_comes_later_is_found(void **state)
{
	struct fixture *f = *state;
	unsigned said;
	struct disk *disk = open_disk(f, "vm");
	for (unsigned i = 0; i < 50; i++)
		assert_int_equal(write_sectors(disk, i * 100, 3, 'u'), 0);
	assert_int_equal(disk_stat(disk, "uncaught"), 50);
	assert_int_equal(disk_stat(disk, "attached"), 0);
	for (unsigned i = 0; i < 3; i++)
		host_step(f->host, 200);
	assert_non_null(strstr(host_said(f->host, &said), "No such file"));
	assert_int_equal(said, 1);
	make_ring_dir(f);
	/* One that was on its way when the ring came. */
	disk_faults(disk)->hold = true;
	struct wish wish = {0, 1};
	char buf[512];
	memset(buf, 'w', sizeof(buf));
	disk_submit(disk, TD_OP_WRITE, 7777, &(struct segment){buf, 1}, 1, granted, &wish);
	wait_attached(f, disk, 1);
	assert_int_equal(wish.done, 0);
	disk_faults(disk)->hold = false;
	disk_drain(disk);
	struct tw_ring_reader *reader = open_reader(f, "vm");
	follow(f, reader);
	check_replica(f); /* what passed before is told of, too */
	tw_ring_reader_destroy(reader);
}

static void a_ring_that_came_in_the_middle_knows_what_was_in_flight(void **state)
{
	struct fixture *f = *state;
	struct wish wish = {0, 1};
	char buf[512];
	struct disk *disk = open_disk(f, "vm");
	memset(buf, 'w', sizeof(buf));
	disk_faults(disk)->hold = true;
	disk_submit(disk, TD_OP_WRITE, 7777, &(struct segment){buf, 1}, 1, granted, &wish);
	make_ring_dir(f);
	wait_attached(f, disk, 1);
	struct tw_ring_reader *reader = open_reader(f, "vm");
	follow(f, reader);
	disk_close_hard(disk);
	disk_faults(disk)->hold = false;
	disk_drain(disk);
	disk_destroy(disk);
	disk = open_disk(f, "vm");
	follow(f, reader);
	assert_int_equal(f->gaps, 1);
	check_replica(f);
	tw_ring_reader_destroy(reader);
}

static void a_ring_that_cannot_be_made_costs_the_guest_nothing(void **state)
{
	struct fixture *f = *state;
	struct rlimit old, small = {1 << 20, RLIM_INFINITY};
	make_ring_dir(f);
	signal(SIGXFSZ, SIG_IGN);
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
	small.rlim_max = old.rlim_max;
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
	struct disk *disk = open_disk(f, "vm");
	const int error = write_sectors(disk, 1, 1, 'x');
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
	assert_int_equal(error, 0);
	assert_int_equal(disk_stat(disk, "uncaught"), 1);
	assert_false(exists(f, "rings/vm.ring"));
}

/* A file of this name that is no ring is left alone. */
static void what_is_no_ring_is_not_touched(void **state)
{
	struct fixture *f = *state;
	char path[160], text[8] = "";
	make_ring_dir(f);
	snprintf(path, sizeof(path), "%s/rings/vm.ring", f->dir);
	int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	assert_int_equal(write(fd, "keep me", 8), 8);
	struct disk *disk = open_disk(f, "vm");
	assert_int_equal(write_sectors(disk, 1, 1, 'x'), 0);
	assert_int_equal(pread(fd, text, 8, 0), 8);
	assert_string_equal(text, "keep me");
	close(fd);
}

/* --- several --- */

static void disks_in_one_tapdisk_do_not_mix(void **state)
{
	struct fixture *f = *state;
	struct disk *disks[8];
	char image[8][120];
	for (int i = 0; i < 8; i++) {
		char name[16];
		snprintf(name, sizeof(name), "vm%d", i);
		snprintf(image[i], sizeof(image[i]), "%s/image%d", f->dir, i);
		assert_int_equal(write_random(image[i], BYTES), 0);
		make_ring_dir(f);
		disks[i] = disk_create(f->host, name, image[i], 0);
		assert_non_null(disks[i]);
	}
	for (int turn = 0; turn < 20; turn++)
		for (int i = 0; i < 8; i++)
			assert_int_equal(write_sectors(disks[i], (unsigned)(turn * 8), 8, i * 20 + turn), 0);
	for (int i = 0; i < 8; i++) {
		char name[16];
		struct tw_record record;
		snprintf(name, sizeof(name), "vm%d", i);
		struct tw_ring_reader *reader = open_reader(f, name);
		for (int turn = 0; turn < 20; turn++) {
			assert_int_equal(tw_ring_next(reader, &record), 1);
			assert_int_equal(*(const unsigned char *)record.payload, i * 20 + turn);
		}
		assert_int_equal(tw_ring_next(reader, &record), 0);
		tw_ring_reader_destroy(reader);
	}
}

static void a_name_that_is_taken_is_waited_for(void **state)
{
	struct fixture *f = *state;
	make_ring_dir(f);
	struct disk *first = open_disk(f, "vm");
	struct disk *second = open_disk(f, "vm");
	assert_int_equal(write_sectors(first, 8, 8, 'f'), 0);
	assert_int_equal(write_sectors(second, 80, 8, 's'), 0);
	assert_int_equal(disk_stat(first, "writes"), 1);
	assert_int_equal(disk_stat(second, "uncaught"), 1);
	disk_destroy(first);
	wait_attached(f, second, 1);
	struct tw_ring_reader *reader = open_reader(f, "vm");
	follow(f, reader);
	check_replica(f);
	tw_ring_reader_destroy(reader);
}

/* --- tapdisk's own --- */

/* A mirror's target is put between a filter and its image: without care the image gets nothing. */
static void a_mirror_does_not_take_the_images_place(void **state)
{
	struct fixture *f = *state;
	make_ring_dir(f);
	struct disk *disk = open_disk(f, "vm");
	struct tw_ring_reader *reader = open_reader(f, "vm");
	disk_insert_mirror(disk);
	assert_int_equal(write_sectors(disk, 8, 8, 'm'), 0);
	assert_int_equal(disk_mirrored(disk), 0);
	follow(f, reader);
	check_replica(f);
	struct wish wish = {0, 1};
	char buf[512] = "";
	disk_submit(disk, TD_OP_READ, 9, &(struct segment){buf, 1}, 1, granted, &wish);
	disk_drain(disk);
	assert_int_equal(buf[511], 'm');
	tw_ring_reader_destroy(reader);
}

static void the_gap_of_a_quiet_guest_is_announced(void **state)
{
	struct fixture *f = *state;
	make_ring_dir(f);
	struct disk *disk = open_disk(f, "vm,ring-size=64K");
	struct tw_ring_reader *reader = open_reader(f, "vm");
	for (unsigned i = 0; i < 100; i++)
		assert_int_equal(write_sectors(disk, i * 64, 8, (int)i), 0);
	assert_true(disk_stat(disk, "missed") > 0);
	follow(f, reader);
	assert_int_equal(f->gaps, 0);
	for (unsigned i = 0; i < 200 && !f->gaps; i++) {
		host_step(f->host, 10);
		follow(f, reader);
	}
	assert_int_equal(f->gaps, 1);
	check_replica(f);
	tw_ring_reader_destroy(reader);
}

static void it_tells_what_it_does(void **state)
{
	struct fixture *f = *state;
	char text[2048], path[160];
	unsigned said;
	make_ring_dir(f);
	struct disk *disk = open_disk(f, "vm");
	for (unsigned i = 0; i < 9; i++)
		assert_int_equal(write_sectors(disk, i, 1, 1), 0);
	disk_stats(disk, text, sizeof(text));
	snprintf(path, sizeof(path), "ring %s/rings/vm.ring\n", f->dir);
	assert_non_null(strstr(text, "state capturing\n"));
	assert_non_null(strstr(text, path));
	assert_non_null(strstr(text, "writes 9\n"));
	assert_non_null(strstr(text, "records 9\n"));
	assert_non_null(strstr(text, "payload_bytes 4608\n"));
	disk_debug(disk);
	assert_non_null(strstr(host_said(f->host, &said), "9 done (0 unsure"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		driver_test(a_pause_gives_the_ring_up_and_takes_it_again),
		driver_test(pauses_under_load_lose_nothing),
		driver_test(a_disk_of_another_size_gets_another_ring),
		driver_test(a_close_in_the_middle_leaves_a_gap_to_the_next_open),
		driver_test(what_was_in_flight_in_a_killed_tapdisk_is_a_gap),
		driver_test(a_chain_that_cannot_be_opened_leaves_nothing_behind),
		driver_test(a_read_only_disk_is_not_captured),
		driver_test(a_bad_name_captures_nothing_and_fails_nothing),
		driver_test(the_longest_name_and_every_size_are_good),
		driver_test(a_directory_that_comes_later_is_found),
		driver_test(a_ring_that_came_in_the_middle_knows_what_was_in_flight),
		driver_test(a_ring_that_cannot_be_made_costs_the_guest_nothing),
		driver_test(what_is_no_ring_is_not_touched),
		driver_test(disks_in_one_tapdisk_do_not_mix),
		driver_test(a_name_that_is_taken_is_waited_for),
		driver_test(a_mirror_does_not_take_the_images_place),
		driver_test(the_gap_of_a_quiet_guest_is_announced),
		driver_test(it_tells_what_it_does),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
