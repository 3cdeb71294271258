/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Crawling while the guest writes: a real ring and a real image; the guest is a callback between two
 * rounds of the crawl. Whatever it does and when: the crawl and what follows it are the disk's tree.
 */
#include "disks.h"

#include "inspect/attach.h"

struct guest {
	const struct disks *d;
	struct tw_ring *ring;
	struct tw_ring_reader *reader;
	struct tw_disk *disk;
	unsigned passed, kept, gaps, follows;
	void (*turn)(struct guest *g); /* called for each record that passes */
	bool mirror;
	uint64_t sequence;
	uint64_t next; /* byte up to which the second image has been written */
};

/* One write as a guest makes it: to the image, then into the ring. */
static void guest_write(struct guest *g, uint64_t offset, const void *data, size_t len)
{
	image_write(g->d, offset, data, len);
	tw_ring_publish(g->ring, 0, offset >> TW_SECTOR_SHIFT, len >> TW_SECTOR_SHIFT, data);
}

/* Writes the next blocks in which the two images differ. False: there are none left. */
static bool write_some(struct guest *g, unsigned blocks)
{
	for (; g->next < DISK_BYTES && blocks; g->next += 1024) {
		if (!memcmp(g->d->before + g->next, g->d->after + g->next, 1024))
			continue;
		guest_write(g, g->next, g->d->after + g->next, 1024);
		blocks--;
	}
	return g->next < DISK_BYTES;
}

static struct tw_error *passed(const struct tw_record *record, void *arg)
{
	struct guest *g = arg;
	g->passed++;
	if (record->flags & TW_RECORD_GAP) {
		g->gaps++;
		assert_null(record->payload);
	}
	if (g->turn)
		g->turn(g);
	return NULL;
}

/* What has passed is still in the ring when it is to be made durable. */
static struct tw_error *keep(void *arg)
{
	struct guest *g = arg;
	if (g->passed > g->kept && !g->mirror)
		assert_true(tw_ring_reader_backlog(g->reader) > 0);
	g->kept = g->passed;
	return NULL;
}

static struct tw_error *crawled(struct tw_disk *disk, void *arg)
{
	struct guest *g = arg;
	assert_null(g->disk);
	g->disk = disk;
	return NULL;
}

static struct tw_error *follows(const struct tw_record *record, void *arg)
{
	struct guest *g = arg;
	assert_non_null(g->disk);
	g->follows++;
	return tw_disk_feed(g->disk, record);
}

static struct guest *guest_new(const struct disks *d, void (*turn)(struct guest *g))
{
	struct guest *g = calloc(1, sizeof(*g));
	g->d = d;
	g->turn = turn;
	assert_int_equal(tw_ring_create(d->ring, DISK_BYTES, TW_RING_MIN_BYTES, &g->ring), 0);
	assert_int_equal(tw_ring_reader_open(d->ring, &g->reader), 0);
	return g;
}

static void guest_free(struct guest *g)
{
	tw_disk_destroy(g->disk);
	tw_ring_reader_destroy(g->reader);
	tw_ring_destroy(g->ring);
	free(g);
}

static void attach(struct guest *g)
{
	struct tw_attach_ops ops = { { passed, keep, g }, NULL, crawled, follows };
	ok(tw_attach(g->d->image, "test", g->reader, no_event, NULL, &ops));
	assert_non_null(g->disk);
	assert_int_equal(g->kept, g->passed);
}

/* Follows what the ring still has; afterwards the disk's tree is the image's. */
static void catch_up(struct guest *g)
{
	struct tw_record record;
	tw_ring_poll(g->ring);
	while (tw_ring_next(g->reader, &record) > 0) {
		assert_false(record.flags & TW_RECORD_GAP);
		ok(tw_disk_feed(g->disk, &record));
	}
	ok(tw_disk_settle(g->disk, (struct tw_time){ 9, 0 }, true));
	char *got = tree_of(g->disk), *expected = tree_of_image(g->d);
	assert_string_equal(got, expected);
	free(got);
	free(expected);
}

static void a_quiet_disk_is_crawled_as_it_is(void **state)
{
	struct guest *g = guest_new(*state, NULL);
	attach(g);
	assert_int_equal(g->passed, 0);
	assert_int_equal(g->follows, 0);
	catch_up(g);
	guest_free(g);
}

static void no_ring_is_a_quiet_disk(void **state)
{
	struct guest *g = guest_new(*state, NULL);
	struct tw_attach_ops ops = { { passed, keep, g }, NULL, crawled, follows };
	ok(tw_attach(g->d->image, "test", NULL, no_event, NULL, &ops));
	catch_up(g);
	guest_free(g);
}

static void what_was_in_the_ring_before_is_in_the_crawl(void **state)
{
	struct guest *g = guest_new(*state, NULL);
	while (write_some(g, 100))
		;
	attach(g);
	assert_true(g->passed > 0);
	assert_int_equal(g->follows, 0);
	catch_up(g);
	guest_free(g);
}

/* The image is ahead of the ring: it was written, and the record has not come. */
static void writes_that_come_later_change_nothing_twice(void **state)
{
	struct guest *g = guest_new(*state, NULL);
	const struct disks *d = g->d;
	image_write(d, 0, d->after, DISK_BYTES);
	attach(g);
	for (uint64_t at = 0; at < DISK_BYTES; at += 1024)
		if (memcmp(d->before + at, d->after + at, 1024))
			tw_ring_publish(g->ring, 0, at >> TW_SECTOR_SHIFT, 2, d->after + at);
	catch_up(g);
	guest_free(g);
}

static void one_block_a_turn(struct guest *g)
{
	write_some(g, 1);
}

static void everything_at_once(struct guest *g)
{
	write_some(g, UINT32_MAX);
}

static void a_guest_that_writes_between_rounds_is_followed(void **state)
{
	struct guest *g = guest_new(*state, one_block_a_turn);
	write_some(g, 1);
	attach(g);
	assert_true(g->passed > 1);
	while (write_some(g, 100))
		;
	catch_up(g);
	guest_free(g);
}

static void a_guest_that_writes_all_between_two_rounds_is_followed(void **state)
{
	struct guest *g = guest_new(*state, everything_at_once);
	write_some(g, 1);
	attach(g);
	catch_up(g);
	guest_free(g);
}

/* More than the ring holds: the rest is only known as ranges. */
static void flood(struct guest *g)
{
	static uint8_t zeroes[4096];
	if (g->sequence++)
		return;
	for (unsigned i = 0; i < 40; i++)
		guest_write(g, DISK_BYTES - 4096, zeroes, sizeof(zeroes));
	write_some(g, UINT32_MAX);
}

static void a_gap_in_the_middle_is_read_again(void **state)
{
	struct disks *d = *state;
	memcpy(d->before + DISK_BYTES - 4096, d->after + DISK_BYTES - 4096, 4096);
	struct guest *g = guest_new(d, flood);
	write_some(g, 1);
	attach(g);
	while (g->passed && tw_ring_poll(g->ring)) {
		/* The gap is announced when there is room; what comes with it needs another look. */
		tw_disk_destroy(g->disk);
		g->disk = NULL;
		attach(g);
	}
	struct tw_record record;
	if (!g->gaps && tw_ring_next(g->reader, &record) > 0) {
		assert_true(record.flags & TW_RECORD_GAP);
		tw_disk_destroy(g->disk);
		g->disk = NULL;
		tw_ring_reader_destroy(g->reader);
		assert_int_equal(tw_ring_reader_open(d->ring, &g->reader), 0);
		attach(g);
	}
	assert_true(g->gaps > 0);
	catch_up(g);
	guest_free(g);
}

static struct tw_error *refuse(struct tw_disk *disk, void *arg)
{
	(void)arg;
	tw_disk_destroy(disk);
	return tw_error_create(TW_UNAVAILABLE, "no");
}

static void an_error_of_a_callback_ends_it(void **state)
{
	struct guest *g = guest_new(*state, NULL);
	struct tw_attach_ops ops = { { passed, keep, g }, NULL, refuse, follows };
	fails(tw_attach(g->d->image, "test", g->reader, no_event, NULL, &ops), TW_UNAVAILABLE);
	fails(tw_attach("/nonexistent", "test", g->reader, no_event, NULL, &ops), TW_IO);
	guest_free(g);
}

/* --- a mirror: the record comes first, and the image later --- */

static void attach_mirror(struct guest *g, size_t keep_bytes)
{
	struct tw_attach_ops ops = { { passed, keep, g }, NULL, crawled, follows };
	g->mirror = true;
	ok(tw_attach_mirror(g->d->image, "test", g->reader, keep_bytes ? keep_bytes : TW_ATTACH_KEEP_BYTES,
		no_event, NULL, &ops));
}

/* Blocks in which the images differ, into the ring alone; at most so many. False: there are none left. */
static bool mirror_some(struct guest *g, unsigned blocks)
{
	const struct disks *d = g->d;
	for (; g->next < DISK_BYTES && blocks; g->next += 1024) {
		if (!memcmp(d->before + g->next, d->after + g->next, 1024))
			continue;
		tw_ring_publish(g->ring, 0, g->next >> TW_SECTOR_SHIFT, 2, d->after + g->next);
		blocks--;
	}
	return g->next < DISK_BYTES;
}

static void image_comes_after(struct guest *g)
{
	image_write(g->d, 0, g->d->after, DISK_BYTES);
	catch_up(g);
}

static void what_is_mirrored_counts_before_the_image_has_it(void **state)
{
	struct guest *g = guest_new(*state, NULL);
	mirror_some(g, UINT32_MAX);
	attach_mirror(g, 0);
	assert_non_null(g->disk);
	assert_true(g->passed + g->follows > 0);
	image_comes_after(g);
	guest_free(g);
}

static void mirror_one_a_turn(struct guest *g)
{
	mirror_some(g, 1);
}

static void what_is_mirrored_between_rounds_counts_too(void **state)
{
	struct guest *g = guest_new(*state, mirror_one_a_turn);
	mirror_some(g, 1);
	attach_mirror(g, 0);
	assert_non_null(g->disk);
	while (mirror_some(g, 100))
		;
	image_comes_after(g);
	guest_free(g);
}

/* The ring is emptied during the crawl, without losing what was in it. */
static void a_mirrors_ring_has_room_again_before_the_crawl_ends(void **state)
{
	struct disks *d = *state;
	struct guest *g = guest_new(d, NULL);
	for (int i = 0; i < 2; i++)
		tw_ring_publish(g->ring, 0, (DISK_BYTES - 16384) >> TW_SECTOR_SHIFT, 31,
			d->after + DISK_BYTES - 16384);
	mirror_some(g, UINT32_MAX);
	assert_true(tw_ring_reader_backlog(g->reader) > TW_RING_MIN_BYTES / 2);
	attach_mirror(g, 0);
	assert_non_null(g->disk);
	assert_int_equal(tw_ring_reader_backlog(g->reader), 0);
	image_comes_after(g);
	guest_free(g);
}

/* What has reached the image is not kept for ever; what has not reached it, is. */
static void little_is_kept_of_a_mirrors_data(void **state)
{
	struct disks *d = *state;
	struct guest *g = guest_new(d, NULL);
	mirror_some(g, UINT32_MAX);
	for (uint64_t at = DISK_BYTES / 2; at < DISK_BYTES / 2 + 65536; at += 4096) /* file data, say */
		tw_ring_publish(g->ring, 0, at >> TW_SECTOR_SHIFT, 2, d->before + at);
	attach_mirror(g, 32768);
	assert_non_null(g->disk);
	image_comes_after(g);
	guest_free(g);
}

static void too_much_that_does_not_reach_the_image_ends_it(void **state)
{
	struct disks *d = *state;
	struct guest *g = guest_new(d, NULL);
	uint8_t other[1024];
	memset(other, 0x5a, sizeof(other));
	mirror_some(g, UINT32_MAX);
	for (uint64_t at = DISK_BYTES / 2; at < DISK_BYTES / 2 + 32768; at += 4096)
		tw_ring_publish(g->ring, 0, at >> TW_SECTOR_SHIFT, 2, other);
	attach_mirror(g, 16384);
	assert_null(g->disk);
	guest_free(g);
}

static void a_gap_of_a_mirror_ends_it(void **state)
{
	struct guest *g = guest_new(*state, NULL);
	static uint8_t zeroes[8192];
	for (unsigned i = 0; i < 20; i++)
		tw_ring_publish(g->ring, 0, 0, sizeof(zeroes) / 512, zeroes);
	struct tw_record record;
	while (tw_ring_next(g->reader, &record) > 0)
		;
	tw_ring_release(g->reader);
	assert_int_equal(tw_ring_poll(g->ring), 0); /* announced */
	attach_mirror(g, 0);
	assert_null(g->disk);
	guest_free(g);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		DISK_TEST(a_quiet_disk_is_crawled_as_it_is),
		DISK_TEST(no_ring_is_a_quiet_disk),
		DISK_TEST(what_was_in_the_ring_before_is_in_the_crawl),
		DISK_TEST(writes_that_come_later_change_nothing_twice),
		DISK_TEST(a_guest_that_writes_between_rounds_is_followed),
		DISK_TEST(a_guest_that_writes_all_between_two_rounds_is_followed),
		DISK_TEST(a_gap_in_the_middle_is_read_again),
		DISK_TEST(an_error_of_a_callback_ends_it),
		DISK_TEST(what_is_mirrored_counts_before_the_image_has_it),
		DISK_TEST(what_is_mirrored_between_rounds_counts_too),
		DISK_TEST(a_mirrors_ring_has_room_again_before_the_crawl_ends),
		DISK_TEST(little_is_kept_of_a_mirrors_data),
		DISK_TEST(too_much_that_does_not_reach_the_image_ends_it),
		DISK_TEST(a_gap_of_a_mirror_ends_it),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
