/* SPDX-License-Identifier: BSD-3-Clause */
/* Inside of a disk, shared by disk.c, layout.c, walk.c, resync.c and state.c. */
#ifndef TW_INSPECT_VOLUME_H
#define TW_INSPECT_VOLUME_H

#include "inspect/content.h"
#include "inspect/disk.h"
#include "volume/fs.h"
#include "volume/layout.h"

struct tw_volume {
	struct tw_disk *disk;
	struct tw_volume_place place;
	char subject[320];           /* the disk's and the place's name; stays where it is */
	const struct tw_fs_ops *ops; /* NULL: not watched */
	void *fs;
	struct tw_digests *digests; /* digest.c's; NULL: none was wanted */
	char *why; /* not watched: the reason */
	enum tw_code why_code;
};

struct tw_disk {
	int fd;
	uint64_t bytes;
	uint64_t loaded_bytes; /* its size when the state was saved */
	char *image;
	char *subject;
	struct tw_source file;          /* the image */
	const struct tw_source *source; /* where volumes are read from */
	tw_disk_emit_fn emit;
	void *arg;
	struct tw_volume **volumes;
	size_t nvolumes;
	uint64_t sequence;
	uint64_t records;
	uint64_t told; /* number of the record up to which a resync has told of written files */
	uint64_t last_ns;    /* dom0's clock at the latest record that was followed; 0: none was */
	uint64_t read_bytes; /* from the image; atomic */
	struct tw_disk_content *content; /* borrowed; NULL: events carry none */
	struct tw_layout layout; /* as it was looked at last; without its places */
	bool map_written;        /* one of the layout's spots was */
	bool unknown_written;    /* the head of a volume that is not watched was */
};

/* One more volume at the end of the disk's table. It takes what the place holds, which is empty
 * then. */
struct tw_error *tw_volume_add(
	struct tw_disk *disk, struct tw_volume_place *place, struct tw_volume **out) TW_MUST_CHECK;
/* The missed bytes that lie in the volume, counted from its start; the caller clears. */
struct tw_error *tw_volume_missed(const struct tw_volume *volume, const struct tw_missed *missed,
	struct tw_missed *out) TW_MUST_CHECK;
/* Gives the volume another place on its disk. */
struct tw_error *tw_volume_move(
	struct tw_volume *volume, const struct tw_volume_place *place) TW_MUST_CHECK;
/* What its place is encrypted with, as a whole; NULL: with nothing that is known. */
const char *tw_volume_cipher(const struct tw_volume *volume);
/* Opens the volume with its module; a file system that cannot be followed leaves ops NULL and says
 * why. */
struct tw_error *tw_volume_open(struct tw_volume *volume) TW_MUST_CHECK;
/* What a module of this volume is given. */
struct tw_fs_env tw_volume_env(struct tw_volume *volume);
void tw_volume_destroy(struct tw_volume *volume);
/* Emits volume.found, with the reason when it is not watched. */
struct tw_error *tw_volume_tell_found(struct tw_volume *volume, struct tw_time now) TW_MUST_CHECK;
/* Remembers whether a record was written where the layout shows. */
void tw_disk_note_layout(struct tw_disk *disk, const struct tw_record *record);
/* Takes a layout that was looked at, and gives the old one. */
void tw_disk_take_layout(struct tw_disk *disk, struct tw_layout *layout);
/* Emits disk.resynced; summary->from is filled in. */
struct tw_error *tw_disk_tell_resynced(struct tw_disk *disk, struct tw_time now, const char *reason,
	struct tw_summary *summary) TW_MUST_CHECK;
/* A part of a record that is the volume's, before it is followed; payload NULL: not known. */
struct tw_error *tw_content_written(struct tw_disk *disk, const struct tw_volume *volume,
	const struct tw_piece *piece, const void *payload) TW_MUST_CHECK;
/* A block of the volume as a log has it (struct tw_fs_env). */
struct tw_error *tw_content_logged(
	struct tw_volume *volume, uint64_t offset, const void *data, size_t len) TW_MUST_CHECK;
/* Gives a numbered event of the volume its content, if that is wanted; valid until the next event. */
struct tw_error *tw_content_attach(struct tw_volume *volume, struct tw_event *event) TW_MUST_CHECK;
/* What of a file can be read: all of it, as it is at this place of the stream; not now, as it has been written
 * again, or is only in a log; or never. */
enum tw_content_found { TW_CONTENT_EXACT, TW_CONTENT_LATER, TW_CONTENT_NEVER };
/* Takes bytes of a file, in order; data NULL: zeroes. */
struct tw_content_sink {
	struct tw_error *(*take)(const uint8_t *data, uint64_t length, void *arg);
	void *arg;
};
/* Hands over what a file, not of inline data, holds; nothing unless it is exact. */
struct tw_error *tw_content_read(struct tw_volume *volume, const struct tw_inode *inode, uint64_t offset,
	uint64_t length, const struct tw_content_sink *sink, enum tw_content_found *found) TW_MUST_CHECK;

/* --- digest.c; nothing happens where no digests are wanted --- */

/* An event of the volume is told now. */
struct tw_error *tw_digest_event(struct tw_volume *volume, const struct tw_event *event) TW_MUST_CHECK;
void tw_digests_destroy(struct tw_digests *digests); /* NULL is fine */
/* The files of all volumes that are waited for, as bytes, and back. */
void tw_disk_save_digests(const struct tw_disk *disk, struct tw_buf *out);
struct tw_error *tw_disk_load_digests(struct tw_disk *disk, struct tw_unpack *in) TW_MUST_CHECK;

/* Emits an event about a volume or, with volume NULL, the disk. */
struct tw_error *tw_disk_tell(struct tw_disk *disk, const struct tw_volume *volume,
	enum tw_event_type type, struct tw_time now, const char *reason) TW_MUST_CHECK;

#endif
