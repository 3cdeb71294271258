/* SPDX-License-Identifier: BSD-3-Clause */
/* Inside of the live inspector, shared by live.c (the loop), live_start.c and live_follow.c. */
#ifndef TW_INSPECT_LIVE_INSIDE_H
#define TW_INSPECT_LIVE_INSIDE_H

#include "event/encode.h"
#include "inspect/content.h"
#include "inspect/disk.h"
#include "inspect/interest.h"
#include "inspect/live.h"
#include "inspect/live_status.h"
#include "inspect/statefile.h"
#include "inspect/uplink.h"
#include "ring.h"
#include "volume/missed.h"

/* With so many bytes of events waiting for the courier, the ring has to wait, and then the dirty
 * map. */
#define TW_LIVE_MAX_WAITING (64u << 20)
/* The courier is looked for so often. */
#define TW_LIVE_RECONNECT_MS 200

struct tw_live {
	struct tw_live_options options;
	struct tw_disk_id id;
	struct tw_state_position position;
	struct tw_disk *disk;
	struct tw_ring_reader *ring;
	struct tw_interest *interest;
	struct tw_outbox *box;
	struct tw_uplink *link;
	struct tw_statefile *state;
	struct tw_disk_content *content; /* NULL: events carry none */
	struct tw_encoder *encoder; /* from when the epoch is known */
	struct tw_buf json;         /* the event at hand */
	struct tw_buf note;         /* what a digest came to */
	struct tw_missed
		missed;     /* ranges of which writes were not followed, until the next resync */
	const char *resync; /* the reason why one is due, or NULL */
	char reason[256];
	bool whole; /* it has to look at the whole disk */
	int stop_fd;
	bool stale;       /* the mirror was lost in the middle of the crawl, which does not count */
	int64_t asked_ms; /* for a new session of the mirror */
	unsigned doubts;  /* crawls in a row that did not find a volume that was there */
	bool draining;    /* the end has come */
	bool unsettled;   /* records were followed since the last flush */
	struct tw_live_status status;
};

int64_t tw_live_now_ms(void);
/* As much waits for the courier as may. */
bool tw_live_is_full(const struct tw_live *live);
/* Exchanges with the courier, which is connected, what can be; waits up to ms for more when something is left. */
void tw_live_pump(struct tw_live *live, int ms);
struct tw_time tw_live_clock(void);
/* A tw_disk_emit_fn: encodes the event into the outbox. */
struct tw_error *tw_live_take_event(const struct tw_event *event, void *live) TW_MUST_CHECK;
/* The first reason counts. What was missed is known; else the disk has to be crawled. */
void tw_live_need_resync(struct tw_live *live, const char *reason);
void tw_live_need_crawl(struct tw_live *live, const char *reason);
/* True when the courier has events that the state knows nothing of: it is older than what was sent
 * (dom0 went down, or the directory is a copy). Their numbers are used up. */
bool tw_live_state_is_old(const struct tw_live *live);

/* What is read for an event's content is checked against this ring, if it can be. */
void tw_live_set_content_ring(struct tw_live *live);

/* --- live_mirror.c: always true, or nothing, when there is no mirror --- */

/* Whether a crawl would be exact now: the session's ring is whole, and the session lives. Else
 * looks for the next session's ring, and asks for one. */
struct tw_error *tw_live_may_crawl(struct tw_live *live, bool *may) TW_MUST_CHECK;
/* Waits for that. */
struct tw_error *tw_live_await_session(struct tw_live *live) TW_MUST_CHECK;
/* When the session has ended, and all of its records were followed: goes on to the next one, if it
 * has begun, which makes a resync due. */
struct tw_error *tw_live_next_session(struct tw_live *live) TW_MUST_CHECK;

/* --- live_follow.c --- */

/* Feeds the disk; what it cannot follow makes a resync due. */
struct tw_error *tw_live_feed(struct tw_live *live, const struct tw_record *record) TW_MUST_CHECK;
/* Looks whether volumes have come, gone or moved, when a record was written where that shows; then
 * a resync is due. Not a part of feeding: what is found depends on when one looks. */
void tw_live_check_layout(struct tw_live *live);
/* A record that is followed later, though it is not in the ring any more: what it wrote to is in the image
 * already. And: all of them have been followed. */
struct tw_error *tw_live_expect_record(const struct tw_record *record, void *live) TW_MUST_CHECK;
void tw_live_caught_up(struct tw_live *live);
/* A record of the log. */
struct tw_error *tw_live_replay_record(const struct tw_record *record, void *live) TW_MUST_CHECK;
/* A record of the ring; and a gap record. */
struct tw_error *tw_live_take_record(const struct tw_record *record, void *live) TW_MUST_CHECK;
struct tw_error *tw_live_take_gap(
	struct tw_live *live, const struct tw_record *record) TW_MUST_CHECK;
/* The capture point has gone and left a gap that it could not announce: its ranges are missed. */
struct tw_error *tw_live_take_open_gap(struct tw_live *live) TW_MUST_CHECK;
/* ... and the resync. */
struct tw_error *tw_live_close_gap(struct tw_live *live) TW_MUST_CHECK;
/* What was followed is in the log: the ring may forget it. Nothing is sent before. */
struct tw_error *tw_live_give_back(struct tw_live *live) TW_MUST_CHECK;
struct tw_error *tw_live_snapshot(struct tw_live *live) TW_MUST_CHECK;
/* A record that is in the resync that is due. */
struct tw_error *tw_live_pass_record(const struct tw_record *record, void *live) TW_MUST_CHECK;
/* What was passed is in the log. Also the place where a long look at a disk can be ended. */
struct tw_error *tw_live_keep_log(void *live) TW_MUST_CHECK;
/* Looks at the disk, for the first time or for the resync that is due. */
struct tw_error *tw_live_crawl(struct tw_live *live) TW_MUST_CHECK;

/* --- live_digest.c --- */

/* Reads some of the files that have been quiet, when all that came has been followed, and tells what comes of
 * it. */
struct tw_error *tw_live_digest(struct tw_live *live) TW_MUST_CHECK;
/* Milliseconds until there is more; -1: nothing is waited for. */
int tw_live_digest_due(const struct tw_live *live);
/* The guest is gone: what waits is told now. */
struct tw_error *tw_live_digest_rest(struct tw_live *live) TW_MUST_CHECK;
/* A note of the log. */
struct tw_error *tw_live_replay_note(struct tw_live *live, const struct tw_record *record) TW_MUST_CHECK;

/* --- live_mend.c --- */

/* Does the resync that is due by looking at what was missed; where that is not enough, a crawl is
 * due. */
struct tw_error *tw_live_mend(struct tw_live *live) TW_MUST_CHECK;
/* The same from what the log holds of it. */
struct tw_error *tw_live_apply_mend(struct tw_live *live, struct tw_span gathered) TW_MUST_CHECK;

#endif
