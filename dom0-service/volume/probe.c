/* SPDX-License-Identifier: BSD-3-Clause */
#include "volume/probe.h"

#include "volume/fs.h"
#include "volume/lvm.h"
#include "volume/tables.h"
#include "volume/window.h"

#include <blkid/blkid.h>
#include <linux/fs.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>

/* File systems that are followed begin in the first bytes; what makes them a part of something else
 * (RAID) is there or in the last. */
#define ENDS_BYTES (128u << 10)
/* libblkid's answer when it finds the signs of several file systems. */
#define AMBIVALENT (-2)

static void free_probe(blkid_probe *pr)
{
	blkid_free_probe(*pr);
}

static struct tw_error *start(int fd, uint64_t offset, uint64_t bytes, blkid_probe *out)
{
	*out = blkid_new_probe();
	if (!*out)
		return tw_error_nomem();
	if (blkid_probe_set_device(*out, fd, (blkid_loff_t)offset, (blkid_loff_t)bytes))
		return tw_error_create(TW_IO, "libblkid cannot read the image");
	return NULL;
}

static void copy_value(blkid_probe pr, const char *name, char *out, size_t size)
{
	const char *value;
	if (!blkid_probe_lookup_value(pr, name, &value, NULL))
		snprintf(out, size, "%s", value);
}

/* --- what a place holds --- */

static struct tw_error *superblocks(
	int fd, uint64_t offset, uint64_t bytes, struct tw_volume_place *place)
{
	__attribute__((cleanup(free_probe))) blkid_probe pr = NULL;
	TW_TRY(start(fd, offset, bytes, &pr));
	blkid_probe_enable_partitions(pr, 0);
	blkid_probe_enable_superblocks(pr, 1);
	blkid_probe_set_superblocks_flags(pr, BLKID_SUBLKS_TYPE | BLKID_SUBLKS_UUID);
	int ret = blkid_do_safeprobe(pr);
	if (ret == AMBIVALENT)
		tw_volume_place_refuse(place, "it has the signs of more than one file system");
	if (ret)
		return NULL;
	copy_value(pr, "TYPE", place->type, sizeof(place->type));
	copy_value(pr, "UUID", place->uuid, sizeof(place->uuid));
	return NULL;
}

struct part {
	const struct tw_source *disk;
	const struct tw_segments *segments;
};

static struct tw_error *read_part(void *arg, uint64_t offset, void *buf, size_t len)
{
	const struct part *part = arg;
	return tw_segments_read(part->segments, part->disk, offset, buf, len);
}

/* Some file systems keep their signs elsewhere. The live image may be ahead, which does not matter
 * for a name: what is followed is found above. */
static struct tw_error *name_it(int fd, struct tw_volume_place *place)
{
	if (*place->type || *place->why || place->segments.nstarts != 1)
		return NULL;
	struct tw_volume_place seen = {0};
	TW_TRY(superblocks(fd, tw_segments_start(&place->segments), place->segments.bytes, &seen));
	if (tw_fs_find(seen.type))
		return NULL;
	memcpy(place->type, seen.type, sizeof(place->type));
	memcpy(place->uuid, seen.uuid, sizeof(place->uuid));
	return NULL;
}

static void say_why(struct tw_volume_place *place)
{
	if (*place->why || tw_fs_find(place->type))
		return;
	place->expected = true;
	if (!strcmp(place->type, "swap") || !strcmp(place->type, "swsuspend"))
		tw_volume_place_refuse(place, "it is swap space");
	else if (!*place->type)
		tw_volume_place_refuse(place, "no known file system");
	else
		place->expected = false;
}

static struct tw_error *identify(
	const struct tw_source *disk, int fd, struct tw_volume_place *place)
{
	struct part part = {disk, &place->segments};
	const struct tw_source source = {
		.read = read_part, .arg = &part, .bytes = place->segments.bytes};
	__attribute__((cleanup(tw_window_deinit))) struct tw_window window = TW_WINDOW_INIT;
	if (!source.bytes || *place->why)
		return NULL;
	TW_TRY(tw_window_init(&window, &source));
	TW_TRY(tw_window_copy_ends(&window, ENDS_BYTES));
	TW_TRY(superblocks(window.fd, 0, source.bytes, place));
	TW_TRY(name_it(fd, place));
	say_why(place);
	return NULL;
}

/* --- partitions --- */

/* libblkid counts in 512 bytes, whatever the sector is. */
static struct tw_error *add_partition(
	struct tw_layout *layout, blkid_partition part, uint64_t disk_bytes)
{
	uint64_t sectors = disk_bytes / 512,
		 start_sector = (uint64_t)blkid_partition_get_start(part);
	uint64_t size = (uint64_t)blkid_partition_get_size(part);
	struct tw_volume_place *place;
	if (blkid_partition_is_extended(part) || start_sector >= sectors || !size)
		return NULL;
	TW_TRY(tw_layout_add(layout, &place));
	if (!place)
		return NULL;
	size = size < sectors - start_sector ? size : sectors - start_sector;
	snprintf(
		place->name, sizeof(place->name), "%u", (unsigned)blkid_partition_get_partno(part));
	return tw_segments_range(&place->segments, start_sector * 512, size * 512);
}

static struct tw_error *whole_disk(struct tw_layout *layout, uint64_t bytes)
{
	struct tw_volume_place *place;
	TW_TRY(tw_layout_add(layout, &place));
	strcpy(place->name, "0");
	return tw_segments_range(&place->segments, 0, bytes);
}

static struct tw_error *partitions(
	const struct tw_source *disk, uint32_t sector, struct tw_layout *layout)
{
	__attribute__((cleanup(tw_window_deinit))) struct tw_window window = TW_WINDOW_INIT;
	__attribute__((cleanup(free_probe))) blkid_probe pr = NULL;
	TW_TRY(tw_window_init(&window, disk));
	TW_TRY(tw_tables_find(&window, sector, layout));
	TW_TRY(start(window.fd, 0, disk->bytes, &pr));
	blkid_probe_set_sectorsize(pr, sector);
	blkid_probe_enable_superblocks(pr, 0);
	blkid_probe_enable_partitions(pr, 1);
	blkid_partlist list = blkid_probe_get_partitions(pr);
	int count = list ? blkid_partlist_numof_partitions(list) : 0;
	for (int i = 0; i < count; i++)
		TW_TRY(add_partition(layout, blkid_partlist_get_partition(list, i), disk->bytes));
	return layout->n ? NULL : whole_disk(layout, disk->bytes);
}

static uint32_t sector_bytes(int fd)
{
	int sector = 512;
	if (ioctl(fd, BLKSSZGET, &sector) < 0 || sector < 512 || sector > 65536)
		return 512;
	return (uint32_t)sector;
}

struct tw_error *tw_probe(const struct tw_source *disk, int fd, struct tw_layout *out)
{
	TW_TRY(partitions(disk, sector_bytes(fd), out));
	for (size_t i = 0; i < out->n; i++)
		TW_TRY(identify(disk, fd, &out->places[i]));
	size_t known = out->n;
	TW_TRY(tw_lvm_find(disk, out));
	for (size_t i = known; i < out->n; i++)
		TW_TRY(identify(disk, fd, &out->places[i]));
	return NULL;
}
