/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A file system module: crawls a volume into a view, follows the writes to it, and emits events.
 * The next file system is a new folder and one line in volume/fs.c. One thread a module instance.
 */
#ifndef TW_VOLUME_FS_H
#define TW_VOLUME_FS_H

#include "base/buf.h"
#include "base/span.h"
#include "view/change.h"
#include "volume/missed.h"
#include "volume/source.h"

/* What a module is given; copied by open. */
struct tw_fs_env {
	struct tw_source
		source; /* the volume, read-only; it may be ahead of the stream of writes */
	tw_emit_fn emit;
	void *arg;
	const char *subject; /* for log lines; lives as long as the instance */
	/* Takes what a log says that a block holds which is no metadata, as far as is known; its place has it
	 * later. NULL: nobody wants it. */
	struct tw_error *(*logged)(void *arg, uint64_t offset, const void *data, size_t len);
};

/* A write to the volume. */
struct tw_write {
	uint64_t offset; /* bytes, multiples of 512 */
	uint64_t length;
	const uint8_t *payload; /* NULL: the content is not known, or zeroes, or undefined */
	uint32_t flags;         /* enum tw_record_flags */
	struct tw_time time;    /* dom0's clock at capture */
	bool told; /* a resync that read the volume later has told what of it is files' content */
};

struct tw_fs_ops {
	const char *name; /* as libblkid's TYPE */

	/* Crawls the volume. TW_UNSUPPORTED names the feature that cannot be followed. */
	struct tw_error *(*open)(const struct tw_fs_env *env, void **fs);
	/* Makes an instance out of what save() wrote; state is one span of a saved file. */
	struct tw_error *(*load)(const struct tw_fs_env *env, struct tw_span state, void **fs);
	struct tw_error *(*save)(void *fs, struct tw_buf *out);
	/* Follows one write. TW_GAP: the stream does not hang together, only a resync helps. */
	struct tw_error *(*write)(void *fs, const struct tw_write *write);
	/* True when the content of a write there counts, false when its range is enough. */
	bool (*wants)(void *fs, uint64_t offset, uint64_t length);
	/* True while that is so of every write, wherever it goes. */
	bool (*wants_all)(void *fs);
	/* Emits what waits for a transaction that may not come. Called at the guest's flushes and
	 * when the disk has been idle, when a transaction that has begun is still waited for, and
	 * with last set at the end. */
	struct tw_error *(*settle)(void *fs, struct tw_time now, bool last);
	/* Moves the instance to the state of a newer one of the same volume, with the events
	 * (flagged resync) that lead there; newer is emptied, destroy it all the same. missed:
	 * bytes of the volume. A volume that was formatted begins as an empty one. */
	struct tw_error *(*resync)(
		void *fs, void *newer, const struct tw_missed *missed, struct tw_time now);
	/* A resync that looks only at what was missed: survey, then gather, then mend.
	 *
	 * survey begins it; every write that was completed before it returns has to be in the
	 * missed of gather. *stands: what is gathered will be a state of the volume whatever the
	 * guest writes meanwhile; else it is one only if nothing of what was read has changed.
	 * gather reads from the volume and appends what it finds to out. *again: the guest was too
	 * fast, begin anew. TW_GAP: only a crawl helps. missed: tidy; found is for gathered_destroy.
	 * mend moves the instance by what gather found, with the events (flagged resync) that lead
	 * there. data: what was missed, and what else is told here as written to files; tidy. */
	struct tw_error *(*survey)(void *fs, void **found, bool *stands);
	struct tw_error *(*gather)(
		void *found, const struct tw_missed *missed, struct tw_buf *out, bool *again);
	void (*gathered_destroy)(void *found); /* NULL is fine */
	struct tw_error *(*mend)(void *fs, struct tw_span gathered, const struct tw_missed *data,
		struct tw_time now);
	/* Emits (flagged resync) what leads from an empty volume to the instance's state: for a
	 * volume that was found after the disk was attached. */
	struct tw_error *(*announce)(void *fs, struct tw_time now);
	/* Names the extended attributes that came or changed, and those that went, between two
	 * digests of them (tw_attr.xattrs; 0: none), in the event; borrowed until the next call. */
	struct tw_error *(*xattrs)(void *fs, uint64_t old, uint64_t now, struct tw_event *event);
	/* False while what a log holds of a block is newer than what is at its place. */
	bool (*in_place)(void *fs, uint64_t block);
	/* True when data is what the log holds of such a block. */
	bool (*is_logged)(void *fs, uint64_t block, const void *data);
	/* Appends the content of a file whose inode holds it; false when it is not known. While an event about
	 * it is emitted. */
	bool (*inline_data)(void *fs, uint32_t ino, struct tw_buf *out);
	/* True while the file has been written to, and no event has told of it yet. */
	bool (*data_waits)(void *fs, uint32_t ino);
	const char *(*uuid)(void *fs); /* lives as long as the instance */
	struct tw_view *(*view)(void *fs);
	void (*destroy)(void *fs); /* NULL is fine */
};

/* The module for a file system type (libblkid's name), or NULL. */
const struct tw_fs_ops *tw_fs_find(const char *type);

#endif
