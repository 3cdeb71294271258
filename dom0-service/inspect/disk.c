/* SPDX-License-Identifier: BSD-3-Clause */
#include "inspect/volume.h"

#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static struct tw_error *read_image(void *arg, uint64_t offset, void *buf, size_t len)
{
	const struct tw_disk *disk = arg;
	while (len) {
		ssize_t n = pread(disk->fd, buf, len, (off_t)offset);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return tw_error_errno(
				errno, "%s: read at %llu", disk->image, (unsigned long long)offset);
		if (!n)
			return tw_error_create(TW_BAD_DATA, "%s: ends at %llu", disk->image,
				(unsigned long long)offset);
		buf = (char *)buf + n;
		offset += (uint64_t)n;
		len -= (size_t)n;
	}
	return NULL;
}

static struct tw_error *open_image(struct tw_disk *disk)
{
	struct stat st;
	disk->fd = open(disk->image, O_RDONLY | O_CLOEXEC);
	if (disk->fd < 0)
		return tw_error_errno(errno, "%s", disk->image);
	if (fstat(disk->fd, &st) < 0)
		return tw_error_errno(errno, "%s", disk->image);
	if (S_ISDIR(st.st_mode))
		return tw_error_errno(EISDIR, "%s", disk->image);
	if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode))
		return tw_error_create(
			TW_BAD_DATA, "%s: neither a file nor a block device", disk->image);
	off_t end = lseek(disk->fd, 0, SEEK_END);
	if (end < 0)
		return tw_error_errno(errno, "%s", disk->image);
	disk->bytes = (uint64_t)end & ~(uint64_t)(TW_SECTOR_SIZE - 1);
	if (!disk->bytes)
		return tw_error_create(TW_BAD_DATA, "%s: it is empty", disk->image);
	disk->file = (struct tw_source){read_image, disk, disk->bytes};
	disk->source = &disk->file;
	return NULL;
}

struct tw_error *tw_disk_create(const char *image, const char *subject, tw_disk_emit_fn emit,
	void *arg, struct tw_disk **out)
{
	struct tw_disk *disk = calloc(1, sizeof(*disk));
	if (!disk)
		return tw_error_nomem();
	disk->fd = -1;
	disk->emit = emit;
	disk->arg = arg;
	disk->image = strdup(image);
	disk->subject = strdup(subject);
	struct tw_error *err = disk->image && disk->subject ? open_image(disk) : tw_error_nomem();
	if (err) {
		tw_disk_destroy(disk);
		return err;
	}
	*out = disk;
	return NULL;
}

void tw_disk_destroy(struct tw_disk *disk)
{
	if (!disk)
		return;
	for (size_t i = 0; i < disk->nvolumes; i++)
		tw_volume_destroy(disk->volumes[i]);
	free(disk->volumes);
	free(disk->image);
	free(disk->subject);
	if (disk->fd >= 0)
		close(disk->fd);
	free(disk);
}

uint64_t tw_disk_bytes(const struct tw_disk *disk)
{
	return disk->bytes;
}

void tw_disk_set_source(struct tw_disk *disk, const struct tw_source *source)
{
	disk->source = source ? source : &disk->file;
}

const struct tw_source *tw_disk_image(const struct tw_disk *disk)
{
	return &disk->file;
}

/* Nothing can be followed: say why, for the first volume that looks like one. */
static struct tw_error *no_volume(const struct tw_disk *disk)
{
	const struct tw_volume *best = NULL;
	for (size_t i = 0; i < disk->nvolumes; i++)
		if (!best || (!*best->place.type && *disk->volumes[i]->place.type))
			best = disk->volumes[i];
	if (!best)
		return tw_error_create(TW_BAD_DATA, "%s: no volume", disk->image);
	return tw_error_create(best->why_code, "%s: %s", disk->image, best->why);
}

struct tw_error *tw_disk_crawl(struct tw_disk *disk, bool strict)
{
	struct tw_volume_place *places;
	size_t n, watched = 0;
	TW_TRY(tw_error_context(tw_probe(disk->fd, disk->bytes, &places, &n), "%s", disk->image));
	struct tw_error *err = NULL;
	for (size_t i = 0; i < n && !err; i++) {
		struct tw_volume *volume;
		err = tw_volume_add(disk, &places[i], &volume);
		if (!err)
			err = tw_volume_open(volume);
		watched += !err && volume->ops;
	}
	free(places);
	TW_TRY(err);
	if (strict && !watched)
		return no_volume(disk);
	for (size_t i = 0; i < n; i++)
		if (!disk->volumes[i]->ops)
			tw_log(TW_LOG_WARN, disk->volumes[i]->subject, "not watched: %s",
				disk->volumes[i]->why);
	return NULL;
}

struct tw_error *tw_disk_attached(struct tw_disk *disk, struct tw_time now)
{
	TW_TRY(tw_disk_tell(disk, NULL, TW_EVENT_DISK_ATTACHED, now, NULL));
	for (size_t i = 0; i < disk->nvolumes; i++) {
		const struct tw_volume *volume = disk->volumes[i];
		char reason[256];
		snprintf(reason, sizeof(reason), "not watched: %s", volume->why ? volume->why : "");
		TW_TRY(tw_disk_tell(
			disk, volume, TW_EVENT_VOLUME_FOUND, now, volume->ops ? NULL : reason));
	}
	return NULL;
}

struct tw_error *tw_disk_detached(struct tw_disk *disk, struct tw_time now)
{
	return tw_disk_tell(disk, NULL, TW_EVENT_DISK_DETACHED, now, NULL);
}

static struct tw_time time_of(const struct tw_record *record)
{
	return (struct tw_time){
		(int64_t)(record->time_ns / 1000000000), (uint32_t)(record->time_ns % 1000000000)};
}

/* The part of a record that lies in a volume, as a write to it. False: none does. */
static bool in_volume(
	const struct tw_volume *volume, const struct tw_record *record, struct tw_write *out)
{
	uint64_t from = record->sector << TW_SECTOR_SHIFT;
	uint64_t to = from + ((uint64_t)record->nsectors << TW_SECTOR_SHIFT);
	uint64_t begin = volume->place.offset, end = begin + volume->place.bytes;
	uint64_t first = from > begin ? from : begin, last = to < end ? to : end;
	if (first >= last)
		return false;
	*out = (struct tw_write){
		.offset = first - begin,
		.length = last - first,
		.payload =
			record->payload ? (const uint8_t *)record->payload + (first - from) : NULL,
		.flags = record->flags,
		.time = time_of(record),
	};
	return true;
}

bool tw_disk_wants(const struct tw_disk *disk, const struct tw_record *record)
{
	struct tw_write write;
	for (size_t i = 0; i < disk->nvolumes; i++) {
		const struct tw_volume *volume = disk->volumes[i];
		if (volume->ops && in_volume(volume, record, &write) &&
			volume->ops->wants(volume->fs, write.offset, write.length))
			return true;
	}
	return false;
}

static struct tw_error *feed_volume(struct tw_volume *volume, const struct tw_record *record)
{
	struct tw_write write;
	if (!volume->ops || !in_volume(volume, record, &write))
		return NULL;
	return tw_error_context(volume->ops->write(volume->fs, &write), "%s", volume->subject);
}

/* Partition tables, and the superblocks of most file systems, begin in the first 68 KiB. */
#define LAYOUT_BYTES (68u << 10)

static bool shows_layout(const struct tw_disk *disk, const struct tw_record *record)
{
	struct tw_write write;
	if (record->sector < LAYOUT_BYTES >> TW_SECTOR_SHIFT &&
		(disk->nvolumes != 1 || disk->volumes[0]->place.partition))
		return true;
	for (size_t i = 0; i < disk->nvolumes; i++)
		if (!disk->volumes[i]->ops && in_volume(disk->volumes[i], record, &write) &&
			write.offset < LAYOUT_BYTES)
			return true;
	return false;
}

static bool same_place(const struct tw_volume_place *a, const struct tw_volume_place *b)
{
	return a->offset == b->offset && a->bytes == b->bytes && !strcmp(a->type, b->type);
}

bool tw_disk_layout_written(const struct tw_disk *disk)
{
	return disk->layout_written;
}

struct tw_error *tw_disk_check_layout(struct tw_disk *disk, bool *changed)
{
	struct tw_volume_place *places;
	size_t n;
	*changed = false;
	if (!disk->layout_written)
		return NULL;
	disk->layout_written = false;
	TW_TRY(tw_probe(disk->fd, disk->bytes, &places, &n));
	*changed = n != disk->nvolumes;
	for (size_t i = 0; i < n && !*changed; i++) {
		const struct tw_volume *volume = disk->volumes[i];
		/* One that was damaged may have been in the making. */
		bool again = !volume->ops && tw_fs_find(volume->place.type) &&
			     volume->why_code == TW_BAD_DATA;
		*changed = again || !same_place(&places[i], &volume->place);
	}
	free(places);
	return NULL;
}

struct tw_error *tw_disk_feed(struct tw_disk *disk, const struct tw_record *record)
{
	disk->records++;
	if (record->flags & TW_RECORD_GAP)
		return tw_error_create(TW_GAP, "writes are missing before record %llu",
			(unsigned long long)record->sequence);
	if (record->flags & TW_RECORD_FLUSH)
		return tw_disk_settle(disk, time_of(record), false);
	if (record->sector > disk->bytes >> TW_SECTOR_SHIFT ||
		record->nsectors > (disk->bytes >> TW_SECTOR_SHIFT) - record->sector)
		return tw_error_create(TW_BAD_DATA,
			"record %llu: sectors %llu+%u are beyond the end of the disk at %llu",
			(unsigned long long)record->sequence, (unsigned long long)record->sector,
			record->nsectors, (unsigned long long)disk->bytes >> TW_SECTOR_SHIFT);
	disk->layout_written |= shows_layout(disk, record);
	for (size_t i = 0; i < disk->nvolumes; i++)
		TW_TRY(feed_volume(disk->volumes[i], record));
	return NULL;
}

struct tw_error *tw_disk_settle(struct tw_disk *disk, struct tw_time now, bool last)
{
	for (size_t i = 0; i < disk->nvolumes; i++) {
		struct tw_volume *volume = disk->volumes[i];
		if (volume->ops)
			TW_TRY(tw_error_context(
				volume->ops->settle(volume->fs, now, last), "%s", volume->subject));
	}
	return NULL;
}

uint64_t tw_disk_loaded_bytes(const struct tw_disk *disk)
{
	return disk->loaded_bytes;
}

void tw_disk_set_sequence(struct tw_disk *disk, uint64_t sequence)
{
	disk->sequence = sequence;
}

uint64_t tw_disk_sequence(const struct tw_disk *disk)
{
	return disk->sequence;
}

void tw_disk_stats(const struct tw_disk *disk, struct tw_disk_stats *out)
{
	*out = (struct tw_disk_stats){.records = disk->records, .events = disk->sequence};
	for (size_t i = 0; i < disk->nvolumes; i++) {
		struct tw_volume *volume = disk->volumes[i];
		if (!volume->ops)
			continue;
		struct tw_view *view = volume->ops->view(volume->fs);
		out->volumes++;
		out->inodes += tw_view_inode_count(view);
		out->names += tw_view_name_count(view);
		out->extents += tw_owners_count(tw_view_owners(view));
	}
}
