/* SPDX-License-Identifier: BSD-3-Clause */
/* From a disk's state to a newer crawl of the same disk. */
#include "inspect/volume.h"

#include "base/log.h"

#include <stdlib.h>
#include <string.h>

static struct tw_volume **find_place(struct tw_disk *disk, const struct tw_volume_place *place)
{
	for (size_t i = 0; i < disk->nvolumes; i++)
		if (disk->volumes[i] && disk->volumes[i]->place.offset == place->offset)
			return &disk->volumes[i];
	return NULL;
}

/* The missed bytes that lie in the volume, counted from its start; the caller clears. */
static struct tw_error *missed_in(
	const struct tw_volume *volume, const struct tw_missed *missed, struct tw_missed *out)
{
	uint64_t begin = volume->place.offset, end = begin + volume->place.bytes;
	out->unwatched = missed->unwatched;
	for (size_t i = 0; i < missed->n; i++) {
		uint64_t from = missed->ranges[i].offset, to = from + missed->ranges[i].length;
		from = from > begin ? from : begin;
		to = to < end ? to : end;
		if (from < to)
			TW_TRY(tw_missed_add_range(out, from - begin, to - from));
	}
	return NULL;
}

static struct tw_error *resync_volume(struct tw_volume *old, struct tw_volume *new,
	const struct tw_missed *missed, struct tw_time now)
{
	struct tw_missed mine = {0};
	if (strcmp(old->place.uuid, new->place.uuid))
		TW_TRY(tw_disk_tell(old->disk, new, TW_EVENT_VOLUME_FORMATTED, now, NULL));
	old->place = new->place;
	struct tw_error *err = missed_in(new, missed, &mine);
	if (!err)
		err = old->ops->resync(old->fs, new->fs, &mine, now);
	tw_missed_clear(&mine);
	return err;
}

/* A volume that is new, or that can be followed only now. What was made in it before it was found
 * is told, too. */
static struct tw_error *adopt_volume(
	struct tw_disk *disk, size_t index, struct tw_volume *new, struct tw_time now)
{
	tw_volume_destroy(disk->volumes[index]);
	disk->volumes[index] = new;
	new->disk = disk;
	TW_TRY(tw_disk_tell(disk, new, TW_EVENT_VOLUME_FOUND, now, new->why));
	return new->ops ? new->ops->announce(new->fs, now) : NULL;
}

static struct tw_error *lose_volume(
	struct tw_disk *disk, size_t index, struct tw_volume *new, struct tw_time now)
{
	struct tw_volume *old = disk->volumes[index];
	if (old->ops)
		TW_TRY(tw_disk_tell(disk, old, TW_EVENT_VOLUME_LOST, now,
			new &&new->why ? new->why : "it is gone"));
	tw_volume_destroy(old);
	disk->volumes[index] = new;
	if (new) {
		new->disk = disk;
		return NULL;
	}
	memmove(&disk->volumes[index], &disk->volumes[index + 1],
		(disk->nvolumes - index - 1) * sizeof(struct tw_volume *));
	disk->nvolumes--;
	return NULL;
}

static struct tw_error *resync_known(struct tw_disk *disk, struct tw_disk *newer,
	const struct tw_missed *missed, struct tw_time now)
{
	for (size_t i = disk->nvolumes; i-- > 0;) {
		struct tw_volume *old = disk->volumes[i];
		struct tw_volume **at = find_place(newer, &old->place), *new = at ? *at : NULL;
		if (old->ops && new &&new->ops == old->ops) {
			TW_TRY(resync_volume(old, new, missed, now));
			continue;
		}
		if (at)
			*at = NULL;
		if (new &&new->ops)
			TW_TRY(adopt_volume(disk, i, new, now));
		else
			TW_TRY(lose_volume(disk, i, new, now));
	}
	return NULL;
}

bool tw_disk_lost_volumes(const struct tw_disk *disk, const struct tw_disk *newer)
{
	for (size_t i = 0; i < disk->nvolumes; i++) {
		struct tw_volume **at =
			find_place((struct tw_disk *)newer, &disk->volumes[i]->place);
		if (disk->volumes[i]->ops && (!at || !(*at)->ops))
			return true;
	}
	return false;
}

static struct tw_error *resync_new(struct tw_disk *disk, struct tw_disk *newer, struct tw_time now)
{
	size_t known = disk->nvolumes;
	for (size_t i = 0; i < newer->nvolumes; i++) {
		struct tw_volume *new = newer->volumes[i], *place;
		if (!new || find_place(disk, &new->place))
			continue;
		TW_TRY(tw_volume_add(disk, &new->place, &place));
		newer->volumes[i] = NULL;
		TW_TRY(adopt_volume(disk, disk->nvolumes - 1, new, now));
	}
	if (disk->nvolumes > known)
		tw_log(TW_LOG_INFO, disk->subject, "%zu new volumes", disk->nvolumes - known);
	return NULL;
}

struct tw_error *tw_disk_resync(struct tw_disk *disk, struct tw_disk *newer,
	const struct tw_missed *missed, struct tw_time now, const char *reason)
{
	struct tw_error *err = resync_known(disk, newer, missed, now);
	if (!err)
		err = resync_new(disk, newer, now);
	tw_disk_destroy(newer);
	TW_TRY(err);
	disk->layout_written = false;
	return tw_disk_tell(disk, NULL, TW_EVENT_DISK_RESYNCED, now, reason);
}
