/* SPDX-License-Identifier: BSD-3-Clause */
/* What of a disk's writes makes its layout worth a look. */
#include "disks.h"

enum { SIZE = 16 << 20, UNKNOWN = 8 << 20 };

/* An ext4 at 1 MiB and something else at 8 MiB, in a partition table. */
static void partitioned(const struct disks *d)
{
	char script[512];
	snprintf(script, sizeof(script),
		"truncate -s %u img; printf 'label: gpt\\nstart=1MiB,size=4M\\nstart=8MiB,size=4M\\n' |"
		" eatmydata sfdisk -q img; dd if=after of=img bs=1M seek=1 conv=notrunc status=none", SIZE);
	shell(d->dir, script);
}

static struct tw_disk *crawl(const struct disks *d)
{
	struct tw_disk *disk;
	ok(tw_disk_create(d->image, "test", no_event, NULL, &disk));
	ok(tw_disk_crawl(disk, true));
	return disk;
}

static void write_at(struct tw_disk *disk, uint64_t offset, const uint8_t *payload, uint32_t bytes)
{
	const struct tw_record record = {1, 1, offset >> TW_SECTOR_SHIFT, bytes >> TW_SECTOR_SHIFT,
		payload ? TW_RECORD_PAYLOAD : TW_RECORD_DISCARD, payload};
	ok(tw_disk_feed(disk, &record));
}

static bool looks_changed(struct tw_disk *disk)
{
	bool changed;
	ok(tw_disk_check_layout(disk, &changed));
	assert_false(tw_disk_layout_written(disk));
	return changed;
}

static void a_table_is_looked_at_at_once(void **state)
{
	struct disks *d = *state;
	static const uint8_t zeroes[4096];
	static const uint64_t spots[] = {0, 512, 1024, SIZE - 512, SIZE - 33 * 512};
	partitioned(d);
	struct tw_disk *disk = crawl(d);
	for (size_t i = 0; i < sizeof(spots) / sizeof(*spots); i++) {
		assert_false(tw_disk_layout_written(disk));
		write_at(disk, spots[i], zeroes, 512);
		assert_true(tw_disk_map_written(disk));
		assert_false(looks_changed(disk));
	}
	write_at(disk, SIZE - 64 * 512, zeroes, 512); /* behind the partitions */
	assert_false(tw_disk_layout_written(disk));
	tw_disk_destroy(disk);
}

static void an_unknown_volume_is_looked_at_soon(void **state)
{
	struct disks *d = *state;
	static const uint8_t zeroes[4096];
	partitioned(d);
	struct tw_disk *disk = crawl(d);
	write_at(disk, UNKNOWN + (68 << 10), zeroes, 4096);
	assert_false(tw_disk_layout_written(disk));
	write_at(disk, UNKNOWN + (64 << 10), zeroes, 4096);
	assert_true(tw_disk_layout_written(disk));
	assert_false(tw_disk_map_written(disk));
	assert_false(looks_changed(disk));
	shell(d->dir, "truncate -s 4M swap; mkswap swap >/dev/null 2>&1;"
		"dd if=swap of=img bs=1M seek=8 conv=notrunc status=none; rm swap");
	write_at(disk, UNKNOWN, zeroes, 4096);
	assert_true(looks_changed(disk));
	tw_disk_destroy(disk);
}

static void what_a_watched_volume_holds_is_no_table(void **state)
{
	struct disks *d = *state;
	struct tw_disk *disk = crawl(d); /* an ext4 on the whole disk */
	uint8_t first[4096];
	memcpy(first, d->before, sizeof(first));
	write_at(disk, 0, first, sizeof(first)); /* a superblock, with the sectors before it */
	assert_false(tw_disk_layout_written(disk));
	first[510] = 0x55;
	write_at(disk, 0, first, 512);
	assert_true(tw_disk_map_written(disk));
	assert_false(looks_changed(disk));
	write_at(disk, 0, NULL, 512);
	assert_true(tw_disk_map_written(disk));
	tw_disk_destroy(disk);
}

static void a_disk_without_a_watched_volume_has_time(void **state)
{
	struct disks *d = *state;
	static const uint8_t zeroes[4096];
	struct tw_disk *disk;
	image_write(d, 1024, zeroes, sizeof(zeroes));
	ok(tw_disk_create(d->image, "test", no_event, NULL, &disk));
	ok(tw_disk_crawl(disk, false));
	write_at(disk, 0, zeroes, 512);
	assert_true(tw_disk_layout_written(disk));
	assert_false(tw_disk_map_written(disk));
	image_write(d, 0, d->before, 8192);
	assert_true(looks_changed(disk));
	tw_disk_destroy(disk);
}

/* A partition that is written while a probe looks: what it sees is what the tables say at that time. */
static void a_partition_that_changes_is_seen(void **state)
{
	struct disks *d = *state;
	static const uint8_t zeroes[512];
	partitioned(d);
	struct tw_disk *disk = crawl(d);
	shell(d->dir, "printf 'start=1MiB,size=4M\\nstart=9MiB,size=4M\\n' |"
		" eatmydata sfdisk -q --no-reread -W never img >/dev/null 2>&1");
	assert_false(looks_changed(disk)); /* nobody has written, so nobody looks */
	write_at(disk, 1024, zeroes, 512);
	assert_true(looks_changed(disk));
	tw_disk_destroy(disk);
}

static void a_loaded_disk_is_looked_at_first(void **state)
{
	struct disks *d = *state;
	struct tw_buf saved = TW_BUF_INIT, again = TW_BUF_INIT;
	struct tw_disk *loaded;
	partitioned(d);
	struct tw_disk *disk = crawl(d);
	ok(tw_disk_save(disk, &saved));
	ok(tw_disk_create(d->image, "test", no_event, NULL, &loaded));
	ok(tw_disk_load(loaded, tw_span(saved.data, saved.len)));
	assert_true(tw_disk_map_written(loaded));
	assert_false(looks_changed(loaded));
	ok(tw_disk_save(loaded, &again));
	assert_int_equal(saved.len, again.len);
	assert_memory_equal(saved.data, again.data, saved.len);
	tw_buf_deinit(&saved);
	tw_buf_deinit(&again);
	tw_disk_destroy(disk);
	tw_disk_destroy(loaded);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		DISK_TEST(a_table_is_looked_at_at_once),
		DISK_TEST(an_unknown_volume_is_looked_at_soon),
		DISK_TEST(what_a_watched_volume_holds_is_no_table),
		DISK_TEST(a_disk_without_a_watched_volume_has_time),
		DISK_TEST(a_partition_that_changes_is_seen),
		DISK_TEST(a_loaded_disk_is_looked_at_first),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
