/* SPDX-License-Identifier: BSD-3-Clause */
#include "inspect/volume.h"

#include "base/log.h"
#include "volume/probe.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

static struct tw_error *read_image(void *arg, uint64_t offset, void *buf, size_t len)
{
	struct tw_disk *disk = arg;
	__atomic_fetch_add(&disk->read_bytes, len, __ATOMIC_RELAXED);
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

/* True when the page cache has the byte; false also where it cannot be asked. */
static bool is_cached(const struct tw_disk *disk, uint64_t offset)
{
	char byte;
	struct iovec to = {&byte, 1};
	return preadv2(disk->fd, &to, 1, (off_t)offset, RWF_NOWAIT) == 1;
}

static void soon_image(void *arg, uint64_t offset, uint64_t len)
{
	const struct tw_disk *disk = arg;
	/* The kernel would look for each page. Where the first one is, mostly the others are. */
	if (is_cached(disk, offset))
		return;
	/* Advice: without it the read waits. */
	(void)posix_fadvise(disk->fd, (off_t)offset, (off_t)len, POSIX_FADV_WILLNEED);
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
	disk->file = (struct tw_source){.read = read_image,
		.arg = disk,
		.bytes = disk->bytes,
		.parallel = true,
		.soon = soon_image};
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
	tw_layout_deinit(&disk->layout);
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

static void log_unwatched(const struct tw_disk *disk)
{
	for (size_t i = 0; i < disk->nvolumes; i++)
		if (!disk->volumes[i]->ops)
			tw_log(disk->volumes[i]->place.expected ? TW_LOG_INFO : TW_LOG_WARN,
				disk->volumes[i]->subject, "not watched: %s",
				disk->volumes[i]->why);
	if (disk->layout.more)
		tw_log(TW_LOG_WARN, disk->subject, "not watched: all after the first %u volumes",
			TW_LAYOUT_MAX_PLACES);
}

struct tw_error *tw_disk_crawl(struct tw_disk *disk, bool strict)
{
	size_t watched = 0;
	TW_TRY(tw_error_context(
		tw_probe(disk->source, disk->fd, &disk->layout), "%s", disk->image));
	for (size_t i = 0; i < disk->layout.n; i++) {
		struct tw_volume *volume;
		TW_TRY(tw_volume_add(disk, &disk->layout.places[i], &volume));
		TW_TRY(tw_volume_open(volume));
		watched += volume->ops != NULL;
	}
	if (strict && !watched)
		return no_volume(disk);
	log_unwatched(disk);
	return NULL;
}

struct tw_error *tw_disk_attached(struct tw_disk *disk, struct tw_time now)
{
	TW_TRY(tw_disk_tell(disk, NULL, TW_EVENT_DISK_ATTACHED, now, NULL));
	for (size_t i = 0; i < disk->nvolumes; i++)
		TW_TRY(tw_volume_tell_found(disk->volumes[i], now));
	return NULL;
}

struct tw_error *tw_disk_detached(struct tw_disk *disk, struct tw_time now)
{
	return tw_disk_tell(disk, NULL, TW_EVENT_DISK_DETACHED, now, NULL);
}

static uint64_t first_byte(const struct tw_record *record)
{
	return record->sector << TW_SECTOR_SHIFT;
}

static uint64_t byte_count(const struct tw_record *record)
{
	return (uint64_t)record->nsectors << TW_SECTOR_SHIFT;
}

static struct tw_pieces pieces_of(const struct tw_volume *volume, const struct tw_record *record)
{
	return tw_pieces(&volume->place.segments, first_byte(record), byte_count(record));
}

bool tw_disk_wants(const struct tw_disk *disk, const struct tw_record *record)
{
	struct tw_piece piece;
	for (size_t i = 0; i < disk->nvolumes; i++) {
		const struct tw_volume *volume = disk->volumes[i];
		struct tw_pieces pieces = pieces_of(volume, record);
		while (volume->ops && tw_pieces_next(&pieces, &piece))
			if (volume->ops->wants(volume->fs, piece.offset, piece.bytes))
				return true;
	}
	return false;
}

/* A discard of a huge range that lies in small stripes: looking at the volume anew is less work. */
#define MAX_PIECES (1u << 20)

static struct tw_error *feed_volume(struct tw_volume *volume, const struct tw_record *record)
{
	struct tw_piece piece;
	struct tw_pieces pieces = pieces_of(volume, record);
	if (!volume->ops)
		return NULL;
	for (unsigned n = 0; tw_pieces_next(&pieces, &piece); n++) {
		const uint8_t *payload = record->payload;
		const struct tw_write write = {
			.offset = piece.offset,
			.length = piece.bytes,
			.payload = payload ? payload + (piece.disk - first_byte(record)) : NULL,
			.flags = record->flags,
			.time = tw_time_of(record->time_ns),
			.told = record->sequence <= volume->disk->told,
		};
		if (n == MAX_PIECES)
			return tw_error_create(TW_GAP, "%s: one write to more than %u stripes",
				volume->subject, MAX_PIECES);
		if (volume->disk->content)
			TW_TRY(tw_content_written(volume->disk, volume, &piece, write.payload));
		TW_TRY(tw_error_context(
			volume->ops->write(volume->fs, &write), "%s", volume->subject));
	}
	return NULL;
}

struct tw_error *tw_disk_feed(struct tw_disk *disk, const struct tw_record *record)
{
	disk->records++;
	/* Requests that are under way at once come in any order. */
	if (!(record->flags & TW_RECORD_GAP) && record->time_ns > disk->last_ns)
		disk->last_ns = record->time_ns;
	if (record->flags & TW_RECORD_GAP)
		return tw_error_create(TW_GAP, "writes are missing before record %llu",
			(unsigned long long)record->sequence);
	if (record->flags & TW_RECORD_FLUSH)
		return tw_disk_settle(disk, tw_time_of(record->time_ns), false);
	if (record->sector > disk->bytes >> TW_SECTOR_SHIFT ||
		record->nsectors > (disk->bytes >> TW_SECTOR_SHIFT) - record->sector)
		return tw_error_create(TW_BAD_DATA,
			"record %llu: sectors %llu+%u are beyond the end of the disk at %llu",
			(unsigned long long)record->sequence, (unsigned long long)record->sector,
			record->nsectors, (unsigned long long)disk->bytes >> TW_SECTOR_SHIFT);
	tw_disk_note_layout(disk, record);
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
	*out = (struct tw_disk_stats){
		.records = disk->records, .events = disk->sequence, .read_bytes = disk->read_bytes};
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
