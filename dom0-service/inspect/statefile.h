/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What outlives an inspector: a snapshot of the disk's state with the events that were not
 * acknowledged when it was taken, and a log of the records since, which is a trace. Loading the
 * snapshot and feeding the log gives the state again, and the same events with the same numbers.
 */
#ifndef TW_INSPECT_STATEFILE_H
#define TW_INSPECT_STATEFILE_H

#include "inspect/disk.h"
#include "inspect/outbox.h"

#define TW_RING_ID_BYTES 16
#define TW_EPOCH_BYTES 33 /* 32 hexadecimal digits and a NUL */

struct tw_statefile;

/* Where in the stream a snapshot stands. */
struct tw_state_position {
	char epoch[TW_EPOCH_BYTES];
	uint8_t ring[TW_RING_ID_BYTES]; /* all zero: no ring yet */
	uint64_t record;                /* the last record that counts */
};

/* dir is made when it is missing. Errors: TW_IO. */
struct tw_error *tw_statefile_create(const char *dir, struct tw_statefile **out) TW_MUST_CHECK;
void tw_statefile_destroy(struct tw_statefile *state);

/* Loads the snapshot into a disk that was created only, and its events into the outbox. *found
 * false: there is none. TW_BAD_DATA: it is damaged, or of another disk or version. */
struct tw_error *tw_statefile_load(struct tw_statefile *state, struct tw_disk *disk,
	struct tw_outbox *box, struct tw_state_position *position, bool *found) TW_MUST_CHECK;

/* Feeds each record of the log to the callback, then leaves the log open for appending.
 * position.record moves along. A torn end, of a record that was never acted upon, is cut off. */
struct tw_error *tw_statefile_replay(struct tw_statefile *state, uint64_t disk_bytes,
	struct tw_state_position *position,
	struct tw_error *(*record)(const struct tw_record *record, void *arg),
	void *arg) TW_MUST_CHECK;

/* Shows each record of the log to the callback, and does nothing else. Before the replay. */
struct tw_error *tw_statefile_look(const struct tw_statefile *state,
	struct tw_error *(*record)(const struct tw_record *record, void *arg),
	void *arg) TW_MUST_CHECK;

/* Replaces snapshot and log by a new snapshot and an empty log, in one step. */
struct tw_error *tw_statefile_snapshot(struct tw_statefile *state, struct tw_disk *disk,
	const struct tw_outbox *box, const struct tw_state_position *position) TW_MUST_CHECK;

/* False before the first snapshot or replay: there is no log to append to. */
bool tw_statefile_has_log(const struct tw_statefile *state);
/* Appends to the log; tw_statefile_flush hands it to the kernel, so that it survives this process.
 */
struct tw_error *tw_statefile_log(
	struct tw_statefile *state, const struct tw_record *record) TW_MUST_CHECK;
struct tw_error *tw_statefile_flush(struct tw_statefile *state) TW_MUST_CHECK;
/* Keeps bytes beside the log, and says so in it, by a record of a gap without sectors: a resync was
 * done by them. record: of which the number and the time count. */
struct tw_error *tw_statefile_log_resync(struct tw_statefile *state,
	const struct tw_record *record, struct tw_span bytes) TW_MUST_CHECK;
/* True for such a record; and the bytes. TW_BAD_DATA: they are damaged. */
bool tw_statefile_is_resync(const struct tw_record *record);
struct tw_error *tw_statefile_resync(struct tw_statefile *state, const struct tw_record *record,
	struct tw_buf *out) TW_MUST_CHECK;
/* Keeps a note in the log: bytes that a replay has to go by, at this place. At most TW_NOTE_BYTES. */
#define TW_NOTE_BYTES 510u
struct tw_error *tw_statefile_log_note(struct tw_statefile *state, const struct tw_record *record,
	struct tw_span note) TW_MUST_CHECK;
/* True for such a record; and the bytes, borrowed from it. */
bool tw_statefile_is_note(const struct tw_record *record);
struct tw_span tw_statefile_note(const struct tw_record *record);
/* True when the log has grown so long that a new snapshot is cheaper than its replay. */
bool tw_statefile_wants_snapshot(const struct tw_statefile *state);

/* Replaces DIR/status.json. */
struct tw_error *tw_statefile_status(
	const struct tw_statefile *state, const char *json) TW_MUST_CHECK;

#endif
