/* SPDX-License-Identifier: BSD-3-Clause */
#include "../check.h"
#include "lvm_image.h"

#include "volume/probe.h"

#include <sys/mman.h>
#include <unistd.h>

enum { DISK = 4 << 20, SECTORS = DISK / LVM_SECTOR };

/* source: what is known of the disk; fd: the live image, which may be ahead of it. */
struct disk {
	uint8_t *bytes;
	int fd;
	struct tw_layout layout;
};

static int setup(void **state)
{
	struct disk *d = calloc(1, sizeof(*d));
	d->bytes = calloc(1, DISK);
	d->fd = memfd_create("disk", MFD_CLOEXEC);
	*state = d;
	return ftruncate(d->fd, DISK);
}

static int teardown(void **state)
{
	struct disk *d = *state;
	tw_layout_deinit(&d->layout);
	close(d->fd);
	free(d->bytes);
	free(d);
	return 0;
}

static void probe(struct disk *d)
{
	const struct tw_source source = { .read = lvm_read, .arg = d->bytes, .bytes = DISK };
	tw_layout_deinit(&d->layout);
	ok(tw_probe(&source, d->fd, &d->layout));
}

static void entry(struct disk *d, unsigned sector, unsigned index, uint8_t type, uint32_t start, uint32_t count)
{
	uint8_t *at = d->bytes + sector * LVM_SECTOR;
	at[510] = 0x55;
	at[511] = 0xaa;
	at += 446 + 16 * index;
	at[4] = type;
	put32(at + 8, start);
	put32(at + 12, count);
}

/* A primary partition, and two logical ones in an extended one. */
static void make_chain(struct disk *d)
{
	entry(d, 0, 0, 0x83, 64, 1000);
	entry(d, 0, 1, 0x05, 2000, 5000);
	entry(d, 2000, 0, 0x83, 63, 900);
	entry(d, 2000, 1, 0x05, 1000, 1000);
	entry(d, 3000, 0, 0x82, 63, 900);
}

/* The superblock of ext4 that libblkid looks for, and the header of swap space. */
static void make_ext4(uint8_t *volume, uint8_t number)
{
	uint8_t *sb = volume + 1024;
	put32(sb, 64);     /* inodes */
	put32(sb + 4, 16); /* blocks */
	put32(sb + 24, 0);
	sb[56] = 0x53;
	sb[57] = 0xef;
	put32(sb + 76, 1);
	put32(sb + 92, 4);     /* has_journal */
	put32(sb + 96, 0x42);  /* filetype, extents */
	memset(sb + 104, number, 16);
}

static void make_swap(uint8_t *volume)
{
	put32(volume + 1024, 1);
	put32(volume + 1028, 63);
	memcpy(volume + 4096 - 10, "SWAPSPACE2", 10);
}

static const struct tw_volume_place *place(const struct disk *d, const char *name)
{
	for (size_t i = 0; i < d->layout.n; i++)
		if (!strcmp(d->layout.places[i].name, name))
			return &d->layout.places[i];
	fail_msg("no place %s", name);
	return NULL;
}

static bool has_spot(const struct disk *d, uint64_t sector)
{
	for (size_t i = 0; i < d->layout.nspots; i++)
		if (d->layout.spots[i].offset == sector * LVM_SECTOR)
			return true;
	return false;
}

static void logical_partitions_are_places(void **state)
{
	struct disk *d = *state;
	make_chain(d);
	make_ext4(d->bytes + 64 * LVM_SECTOR, 1);
	make_ext4(d->bytes + 2063 * LVM_SECTOR, 2);
	make_swap(d->bytes + 3063 * LVM_SECTOR);
	probe(d);
	assert_int_equal(d->layout.n, 3);
	assert_string_equal(place(d, "1")->type, "ext4");
	assert_string_equal(place(d, "5")->type, "ext4");
	assert_int_equal(tw_segments_start(&place(d, "5")->segments), 2063 * LVM_SECTOR);
	assert_int_equal(place(d, "5")->segments.bytes, 900 * LVM_SECTOR);
	assert_string_equal(place(d, "6")->why, "it is swap space");
	assert_true(place(d, "6")->expected);
	assert_true(has_spot(d, 0) && has_spot(d, 2000) && has_spot(d, 3000));
}

static void the_next_record_is_a_spot_before_it_is_there(void **state)
{
	struct disk *d = *state;
	make_chain(d);
	entry(d, 3000, 1, 0x05, 2500, 1000);
	probe(d);
	assert_int_equal(d->layout.n, 3);
	assert_true(has_spot(d, 4500));
}

static void a_chain_that_bites_its_tail_ends(void **state)
{
	struct disk *d = *state;
	make_chain(d);
	entry(d, 3000, 1, 0x05, 0, 1000);
	probe(d);
	entry(d, 3000, 1, 0x05, 1000, 1000);
	probe(d);
	entry(d, 3000, 1, 0x05, UINT32_MAX, 1000);
	probe(d);
	assert_true(d->layout.n >= 3);
}

static void both_copies_of_a_gpt_are_spots(void **state)
{
	struct disk *d = *state;
	uint8_t *header = d->bytes + LVM_SECTOR;
	entry(d, 0, 0, 0xee, 1, SECTORS - 1);
	memcpy(header, "EFI PART", 8);
	put64(header + 32, SECTORS - 101);
	put64(header + 72, 40);
	put32(header + 80, 128);
	put32(header + 84, 128);
	memcpy(d->bytes + (SECTORS - 101) * LVM_SECTOR, "EFI PART", 8);
	put64(d->bytes + (SECTORS - 101) * LVM_SECTOR + 72, SECTORS - 150);
	put32(d->bytes + (SECTORS - 101) * LVM_SECTOR + 80, 128);
	put32(d->bytes + (SECTORS - 101) * LVM_SECTOR + 84, 128);
	probe(d);
	assert_true(has_spot(d, 1) && has_spot(d, 40));
	assert_true(has_spot(d, SECTORS - 101) && has_spot(d, SECTORS - 150) && has_spot(d, SECTORS - 1));
}

static void only_the_source_decides(void **state)
{
	struct disk *d = *state;
	make_chain(d);
	assert_int_equal(pwrite(d->fd, d->bytes, DISK, 0), DISK);
	uint8_t *later = calloc(1, 8192);
	make_ext4(later, 1);
	assert_int_equal(pwrite(d->fd, later, 8192, 64 * LVM_SECTOR), 8192);
	memset(d->bytes, 0, DISK);
	probe(d); /* the image has a table already, the stream has not */
	assert_int_equal(d->layout.n, 1);
	assert_string_equal(place(d, "0")->why, "no known file system");
	make_chain(d);
	probe(d); /* and now it has no file system yet */
	assert_int_equal(d->layout.n, 3);
	assert_string_equal(place(d, "1")->type, "");
	free(later);
}

static void a_name_may_come_from_the_image(void **state)
{
	struct disk *d = *state;
	uint8_t later[4096] = {0};
	make_swap(later);
	assert_int_equal(pwrite(d->fd, later, 4096, 0), 4096);
	probe(d);
	assert_string_equal(place(d, "0")->why, "it is swap space");
}

static void signs_of_two_file_systems_are_none(void **state)
{
	struct disk *d = *state;
	make_ext4(d->bytes, 1);
	memcpy(d->bytes + 32768 + 1, "CD001", 5);
	d->bytes[32768] = 1;
	probe(d);
	assert_int_equal(d->layout.n, 1);
	assert_non_null(strstr(place(d, "0")->why, "more than one"));
	assert_false(place(d, "0")->expected);
}

static void too_many_partitions_are_cut(void **state)
{
	struct disk *d = *state;
	for (unsigned i = 0; i < 2 * TW_LAYOUT_MAX_PLACES; i++) {
		struct tw_volume_place *added;
		ok(tw_layout_add(&d->layout, &added));
		assert_int_equal(added == NULL, i >= TW_LAYOUT_MAX_PLACES);
	}
	assert_true(d->layout.more);
}

#define PROBE_TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		PROBE_TEST(logical_partitions_are_places),
		PROBE_TEST(the_next_record_is_a_spot_before_it_is_there),
		PROBE_TEST(a_chain_that_bites_its_tail_ends),
		PROBE_TEST(both_copies_of_a_gpt_are_spots),
		PROBE_TEST(only_the_source_decides),
		PROBE_TEST(a_name_may_come_from_the_image),
		PROBE_TEST(signs_of_two_file_systems_are_none),
		PROBE_TEST(too_many_partitions_are_cut),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
