/* SPDX-License-Identifier: BSD-3-Clause */
/* The event: one change of one file (or volume, or disk) as the net effect of one transaction. */
#ifndef TW_EVENT_EVENT_H
#define TW_EVENT_EVENT_H

#include "base/buf.h"
#include "base/error.h"
#include <stdbool.h>
#include <stdint.h>

enum tw_event_type {
	TW_EVENT_FILE_CREATED = 1,
	TW_EVENT_FILE_MODIFIED,
	TW_EVENT_FILE_TRUNCATED,
	TW_EVENT_FILE_RENAMED,
	TW_EVENT_FILE_LINKED,
	TW_EVENT_FILE_UNLINKED,
	TW_EVENT_FILE_DELETED,
	TW_EVENT_FILE_ATTRIBUTES,
	TW_EVENT_VOLUME_FOUND,
	TW_EVENT_VOLUME_FORMATTED,
	TW_EVENT_VOLUME_LOST,
	TW_EVENT_DISK_ATTACHED,
	TW_EVENT_DISK_DETACHED,
	TW_EVENT_DISK_RESYNCED,
	TW_EVENT_SPOOL_DROPPED, /* by the courier alone */
	TW_EVENT_FILE_SETTLED,  /* no change for a while: tells what the file holds, and changes nothing */
	TW_EVENT_TYPE_END
	/* Spools hold these numbers: new types go to the end, and stay below 64. */
};

enum tw_kind {
	TW_KIND_NONE, /* volume and disk events */
	TW_KIND_FILE,
	TW_KIND_DIR,
	TW_KIND_SYMLINK,
	TW_KIND_FIFO,
	TW_KIND_SOCKET,
	TW_KIND_CHAR,
	TW_KIND_BLOCK,
};

struct tw_bytes {
	const void *data;
	size_t len;
};

struct tw_time {
	int64_t sec; /* since the epoch, may be negative */
	uint32_t nsec;
};

/* Of a clock in nanoseconds since the epoch. */
static inline struct tw_time tw_time_of(uint64_t ns)
{
	return (struct tw_time){(int64_t)(ns / 1000000000), (uint32_t)(ns % 1000000000)};
}

struct tw_range {
	uint64_t offset; /* bytes */
	uint64_t length;
};

#define TW_SHA256_BYTES 32

/* How much of a file's content its events carry. */
enum tw_content_mode {
	TW_CONTENT_NONE,
	TW_CONTENT_CHANGED, /* the ranges that changed */
	TW_CONTENT_FULL,    /* all of it, each time */
};

struct tw_content_piece {
	uint64_t offset; /* bytes, in the file */
	uint64_t length;
	const uint8_t *data; /* NULL: zeroes, that take no room on the disk */
};

/* Of a file, by offset. */
struct tw_content {
	const struct tw_content_piece *pieces;
	size_t npieces;
	const struct tw_range *missing; /* has been written again already: a later event has it */
	size_t nmissing;
	const struct tw_range *left_out; /* is more than there may be in an event */
	size_t nleft_out;
	bool whole; /* all of the file is meant, not only what changed */
};

/* What a resync summed up. */
struct tw_summary {
	struct tw_time from;  /* of the last write that was followed; 0: not known */
	struct tw_time to;    /* up to which the writes are in the resync */
	uint64_t bytes;       /* of the disk, written and not followed, */
	bool bytes_known;     /* ... or nobody noted them */
};

/* Who the disk is; the strings belong to the owner of this struct. */
struct tw_disk_id {
	const char *host;
	const char *domain_uuid;
	const char *domain_name;
	uint32_t domid;
	const char *vdev;
	const char *epoch; /* disk epoch: new when the sequence starts again */
};

/* All pointers are borrowed for the time of the call that takes the event. */
struct tw_event {
	enum tw_event_type type;
	uint64_t sequence;
	const char *volume; /* volume uuid, "" for disk events */
	struct tw_time time;
	struct tw_time observed;
	struct tw_bytes path; /* subject; raw bytes from the volume's root, begins with '/'; else it
			       * is the end of a longer one, and the event says path_truncated
			       * (old_path_truncated) */
	struct tw_bytes old_path; /* data == NULL: absent; so for target */
	struct tw_bytes target;
	enum tw_kind kind;
	uint64_t inode; /* inode .. ctime are encoded for file events only */
	uint32_t generation;
	uint64_t size;
	uint32_t mode; /* the twelve permission bits */
	uint32_t uid;
	uint32_t gid;
	uint32_t nlink;
	struct tw_time mtime;
	struct tw_time ctime;
	uint32_t rdev_major; /* char and block */
	uint32_t rdev_minor;
	const struct tw_range *ranges;
	size_t nranges;
	const struct tw_bytes
		*xattrs; /* full names: first those that came or changed, then those that went */
	size_t nxattrs_set, nxattrs_removed;
	const struct tw_content *content; /* NULL: not wanted */
	const uint8_t *sha256;       /* file.settled: 32 bytes; NULL: not told, since ... */
	const char *sha256_left_out; /* ... of this: one word; NULL: it is told */
	uint32_t transaction; /* 0: none */
	bool resync;
	bool exchange;
	uint32_t exchanged; /* with exchange: the inode that has the old path now; not told */
	bool encrypted;     /* names (shown in base64) or content are what is on disk, not what the
			       guest sees */
	const char *reason; /* volume and disk events: plain text, or NULL */
	const char *place;  /* volume events: which of the disk's volumes it is, or NULL */
	const struct tw_summary *summary; /* disk.resynced, or NULL */
	const char *fstype; /* volume events: libblkid's name of what is there, or NULL */
};

/* "org.tapwire.file.created" and so on; "?" for no type. */
const char *tw_event_type_name(enum tw_event_type type);
/* The type of a name, or 0. */
enum tw_event_type tw_event_type_from_name(const char *name);
const char *tw_kind_name(enum tw_kind kind);

/* Appends the source that all events of the disk begin with: /xen/<host>/<domain uuid>/<vdev>, each
 * part escaped as a URI's. */
void tw_disk_source(const struct tw_disk_id *disk, struct tw_buf *out);

#endif
