/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A watched disk: its volumes, the stream of its writes, and the numbering of its events. The same
 * engine serves crawl, infer and the live inspector. One thread.
 */
#ifndef TW_INSPECT_DISK_H
#define TW_INSPECT_DISK_H

#include "base/buf.h"
#include "base/span.h"
#include "event/event.h"
#include "record.h"
#include "volume/missed.h"
#include "volume/source.h"

struct tw_disk;

/* Takes an event; sequence and volume are set. The event is borrowed. */
typedef struct tw_error *(*tw_disk_emit_fn)(const struct tw_event *event, void *arg);

struct tw_disk_stats {
	uint64_t volumes; /* watched ones */
	uint64_t inodes;
	uint64_t names;
	uint64_t extents;
	uint64_t records;
	uint64_t events;
	uint64_t read_bytes; /* from the image */
};

/* Opens the image read-only. subject, for log lines, is copied. Errors: TW_IO, TW_BAD_DATA (empty).
 */
struct tw_error *tw_disk_create(const char *image, const char *subject, tw_disk_emit_fn emit,
	void *arg, struct tw_disk **out) TW_MUST_CHECK;
void tw_disk_destroy(struct tw_disk *disk);

uint64_t tw_disk_bytes(const struct tw_disk *disk);

/* Lets the disk be read through another source than its image; it must outlive the disk. NULL: the
 * image. */
void tw_disk_set_source(struct tw_disk *disk, const struct tw_source *source);
const struct tw_source *tw_disk_image(const struct tw_disk *disk);

/* Finds and crawls the volumes. With strict set, a disk on which no volume can be followed is an
 * error that says why; otherwise such volumes are told of in the events of tw_disk_attached(). */
struct tw_error *tw_disk_crawl(struct tw_disk *disk, bool strict) TW_MUST_CHECK;

/* Emits disk.attached and volume.found. */
struct tw_error *tw_disk_attached(struct tw_disk *disk, struct tw_time now) TW_MUST_CHECK;

/* Emits disk.detached. */
struct tw_error *tw_disk_detached(struct tw_disk *disk, struct tw_time now) TW_MUST_CHECK;

/* Follows one record. TW_GAP: writes are missing, or a volume's stream does not hang together;
 * after a tw_disk_resync() it goes on. */
struct tw_error *tw_disk_feed(struct tw_disk *disk, const struct tw_record *record) TW_MUST_CHECK;
/* True when the payload of the record counts for the disk's state, false when its range is enough.
 */
bool tw_disk_wants(const struct tw_disk *disk, const struct tw_record *record);
/* Emits what waits for a transaction that may not come; with last set, also what waits for one that
 * has begun. */
struct tw_error *tw_disk_settle(struct tw_disk *disk, struct tw_time now, bool last) TW_MUST_CHECK;

/* True when newer, a later crawl, does not know a volume that this disk watches. The one who
 * changes a disk's tables writes them one after the other: that may be a moment's picture. */
bool tw_disk_lost_volumes(const struct tw_disk *disk, const struct tw_disk *newer);
/* True when a partition, a logical volume or a file system has come or gone, or lies elsewhere,
 * since the crawl: a resync is due. Looks at the image only after a write to a place where that
 * shows; not for a replay, which must not look. */
struct tw_error *tw_disk_check_layout(struct tw_disk *disk, bool *changed) TW_MUST_CHECK;
/* The same after writes that were missed. */
struct tw_error *tw_disk_check_missed_layout(
	struct tw_disk *disk, const struct tw_missed *missed, bool *changed) TW_MUST_CHECK;
/* True when there was such a write since the last look. */
bool tw_disk_layout_written(const struct tw_disk *disk);
/* True when it was one that may have moved a volume that is watched: no record must be followed
 * before the look. */
bool tw_disk_map_written(const struct tw_disk *disk);

/* Moves this disk to the state of another one that was crawled later from the same image, with the
 * events (flagged resync) that lead there, and a disk.resynced at the end that gives the reason
 * and what it sums up. missed: bytes of the disk. newer is destroyed. */
struct tw_error *tw_disk_resync(struct tw_disk *disk, struct tw_disk *newer,
	struct tw_missed *missed, struct tw_time now, const char *reason) TW_MUST_CHECK;

/* Calls each() for every name of every watched volume, parents before children; the event holds the
 * path and the inode. */
struct tw_error *tw_disk_walk(struct tw_disk *disk, tw_disk_emit_fn each, void *arg) TW_MUST_CHECK;

/* Appends a JSON array that says of each volume where it is, what is in it and why it is not
 * watched. */
struct tw_error *tw_disk_describe(const struct tw_disk *disk, struct tw_buf *out) TW_MUST_CHECK;
/* Appends what everybody should know who takes the disk for watched, in a line without its end: which of its volumes
 * are encrypted. Nothing when none is. */
void tw_disk_remark(const struct tw_disk *disk, struct tw_buf *out);

/* The number of the last event. */
uint64_t tw_disk_sequence(const struct tw_disk *disk);
void tw_disk_stats(const struct tw_disk *disk, struct tw_disk_stats *out);

/* The state as bytes, and back (into a disk that was created and not crawled). */
struct tw_error *tw_disk_save(struct tw_disk *disk, struct tw_buf *out) TW_MUST_CHECK;
struct tw_error *tw_disk_load(struct tw_disk *disk, struct tw_span state) TW_MUST_CHECK;
/* The size of the disk when the loaded state was saved, in bytes. */
uint64_t tw_disk_loaded_bytes(const struct tw_disk *disk);
/* Lets the events go on after this number. */
void tw_disk_set_sequence(struct tw_disk *disk, uint64_t sequence);

#endif
