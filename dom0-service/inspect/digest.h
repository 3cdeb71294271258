/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The SHA-256 of files that have been quiet. Which files of a disk are waited for follows from its events;
 * when one has been quiet it is read, piece by piece between records, and what comes of it is a note: what
 * is told depends on a clock and on the image, so it is logged, and a replay tells it again by the note.
 * The digest is of the file as it is at the note's place of the stream: one that changes while it is read
 * is waited for anew. One thread.
 */
#ifndef TW_INSPECT_DIGEST_H
#define TW_INSPECT_DIGEST_H

#include "inspect/disk.h"

struct tw_digest_turn {
	int64_t now_ms; /* of CLOCK_MONOTONIC */
	size_t budget;  /* bytes to read; about so many, and a file counts for a few in any case */
	bool last;      /* there is no later: what is waited for has been quiet, or could not be read */
	bool give_up;   /* nothing is read any more */
};

/* Whether digests of the disk's files are wanted. */
bool tw_disk_wants_digests(const struct tw_disk *disk);
/* Does some work. Something was appended to note: tell it, and come again. Else nothing is left to be done
 * now, or the budget is used up. */
struct tw_error *tw_disk_digest(
	struct tw_disk *disk, struct tw_digest_turn *turn, struct tw_buf *note) TW_MUST_CHECK;
/* When there is work, on the turn's clock: 0 at once, INT64_MAX never. */
int64_t tw_disk_digest_next(const struct tw_disk *disk);
/* What was read so far of a file is read again: writes were passed over. */
void tw_disk_digest_restart(struct tw_disk *disk);
/* Emits the events of a note. TW_BAD_DATA: it is of another disk. */
struct tw_error *tw_disk_settled(
	struct tw_disk *disk, struct tw_span note, struct tw_time now) TW_MUST_CHECK;
/* Files that are waited for; *late: how many of them wait for a place. NULL is fine. */
uint64_t tw_disk_digests_waiting(const struct tw_disk *disk, uint64_t *late);

#endif
