/* SPDX-License-Identifier: BSD-3-Clause */
/* Whether a disk's layout is still what it was. */
#include "inspect/volume.h"

#include "volume/probe.h"

#include <string.h>

/* The superblocks of most file systems are in the first 68 KiB. */
#define HEAD_BYTES (68u << 10)

static bool overlaps(const struct tw_range *range, uint64_t from, uint64_t to)
{
	return from < range->offset + range->length && to > range->offset;
}

/* Whether all of a range of the disk is what volumes that are watched hold: no table is there. */
static bool watched(const struct tw_disk *disk, uint64_t from, uint64_t to)
{
	struct tw_piece piece;
	for (size_t i = 0; i < disk->nvolumes && from < to; i++) {
		const struct tw_volume *volume = disk->volumes[i];
		struct tw_pieces pieces = tw_pieces(&volume->place.segments, from, to - from);
		while (volume->ops && tw_pieces_next(&pieces, &piece) && piece.disk == from)
			from += piece.bytes;
	}
	return from >= to;
}

/* A file system on the whole disk leaves the first sector alone, but may write it as it was. */
static bool first_sector_changed(const struct tw_disk *disk, const struct tw_record *record)
{
	return !record->sector && record->nsectors &&
	       (!record->payload ||
		       memcmp(record->payload, disk->layout.first, sizeof(disk->layout.first)));
}

static bool shows_map(const struct tw_disk *disk, const struct tw_record *record)
{
	uint64_t begin = record->sector << TW_SECTOR_SHIFT;
	uint64_t end = begin + ((uint64_t)record->nsectors << TW_SECTOR_SHIFT);
	if (first_sector_changed(disk, record))
		return true;
	for (size_t i = 0; i < disk->layout.nspots; i++) {
		const struct tw_range *spot = &disk->layout.spots[i];
		if (!overlaps(spot, begin, end))
			continue;
		uint64_t last = spot->offset + spot->length;
		if (!watched(disk, begin > spot->offset ? begin : spot->offset,
			    end < last ? end : last))
			return true;
	}
	return false;
}

static bool shows_unknown(const struct tw_disk *disk, const struct tw_record *record)
{
	struct tw_piece piece;
	for (size_t i = 0; i < disk->nvolumes; i++) {
		const struct tw_volume *volume = disk->volumes[i];
		struct tw_pieces pieces =
			tw_pieces(&volume->place.segments, record->sector << TW_SECTOR_SHIFT,
				(uint64_t)record->nsectors << TW_SECTOR_SHIFT);
		/* Of a physical volume, what matters is a spot. */
		if (volume->ops || !strcmp(volume->place.type, "LVM2_member"))
			continue;
		while (tw_pieces_next(&pieces, &piece))
			if (piece.offset < HEAD_BYTES)
				return true;
	}
	return false;
}

void tw_disk_note_layout(struct tw_disk *disk, const struct tw_record *record)
{
	disk->map_written |= shows_map(disk, record);
	disk->unknown_written |= shows_unknown(disk, record);
}

bool tw_disk_layout_written(const struct tw_disk *disk)
{
	return disk->map_written || disk->unknown_written;
}

bool tw_disk_map_written(const struct tw_disk *disk)
{
	bool any = false;
	for (size_t i = 0; disk->map_written && i < disk->nvolumes && !any; i++)
		any = disk->volumes[i]->ops != NULL;
	return any;
}

static bool as_it_was(const struct tw_volume *volume, const struct tw_volume_place *place)
{
	/* One that was damaged may have been in the making. */
	bool again =
		!volume->ops && tw_fs_find(volume->place.type) && volume->why_code == TW_BAD_DATA;
	return !again && tw_volume_place_equal(&volume->place, place);
}

static bool all_as_they_were(const struct tw_disk *disk, const struct tw_layout *now)
{
	if (now->n != disk->nvolumes)
		return false;
	for (size_t i = 0; i < now->n; i++) {
		size_t k = 0;
		while (k < now->n &&
			!tw_volume_place_same(&disk->volumes[k]->place, &now->places[i]))
			k++;
		if (k == now->n || !as_it_was(disk->volumes[k], &now->places[i]))
			return false;
	}
	return true;
}

void tw_disk_take_layout(struct tw_disk *disk, struct tw_layout *layout)
{
	struct tw_layout old = disk->layout;
	disk->layout = *layout;
	*layout = old;
	disk->map_written = false;
	disk->unknown_written = false;
}

struct tw_error *tw_disk_check_layout(struct tw_disk *disk, bool *changed)
{
	struct tw_layout now = {0};
	*changed = false;
	if (!tw_disk_layout_written(disk))
		return NULL;
	disk->map_written = false;
	disk->unknown_written = false;
	struct tw_error *err = tw_probe(disk->source, disk->fd, &now);
	if (!err) {
		*changed = !all_as_they_were(disk, &now);
		tw_disk_take_layout(disk, &now);
	}
	tw_layout_deinit(&now);
	return err;
}

static void note_range(struct tw_disk *disk, const struct tw_range *range, const uint8_t *first)
{
	uint64_t left = range->length >> TW_SECTOR_SHIFT;
	struct tw_record record = {.sector = range->offset >> TW_SECTOR_SHIFT};
	for (; left; left -= record.nsectors, record.sector += record.nsectors) {
		record.nsectors = left < 1u << 30 ? (uint32_t)left : 1u << 30;
		record.payload = record.sector ? NULL : first;
		tw_disk_note_layout(disk, &record);
	}
}

/* A gap's unit begins with the first sector more often than that sector is written. */
struct tw_error *tw_disk_check_missed_layout(
	struct tw_disk *disk, const struct tw_missed *missed, bool *changed)
{
	uint8_t first[TW_SECTOR_SIZE];
	*changed = false;
	TW_TRY(tw_source_read(&disk->file, 0, first, sizeof(first)));
	for (size_t i = 0; i < missed->n; i++)
		note_range(disk, &missed->ranges[i], first);
	return tw_disk_map_written(disk) ? tw_disk_check_layout(disk, changed) : NULL;
}
