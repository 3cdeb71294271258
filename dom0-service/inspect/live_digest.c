/* SPDX-License-Identifier: BSD-3-Clause */
/* Digests of quiet files, between the records. */
#include "inspect/live_inside.h"

#include "base/log.h"
#include "inspect/digest.h"

/* Following comes first: with more than this in the ring nothing is read. It also bounds what has to be looked
 * through to see whether what was read has been written again. */
#define MAX_BACKLOG (256u << 10)
/* A record that comes meanwhile waits for so much reading: a millisecond or two. */
#define TURN_BYTES (512u << 10)
/* What an inspector whose guest is gone reads before it ends. */
#define REST_MS 20000
#define REST_BYTES (64u << 20)
/* ... and how long it has the courier take what there is too much of, from the same beginning on. */
#define HAND_OVER_MS 40000

static bool may_read(const struct tw_live *live)
{
	return live->content && !live->resync && !live->stale && !tw_live_is_full(live) &&
	       tw_disk_wants_digests(live->disk) && tw_ring_reader_backlog(live->ring) <= MAX_BACKLOG;
}

/* Logged first: from there on it is told again in the same way, whatever the image becomes. */
static struct tw_error *tell(struct tw_live *live)
{
	struct tw_time now = tw_live_clock();
	const struct tw_span note = tw_span(live->note.data, live->note.len);
	const struct tw_record at = {.sequence = live->position.record,
		.time_ns = (uint64_t)now.sec * 1000000000u + now.nsec};
	TW_TRY(tw_statefile_log_note(live->state, &at, note));
	return tw_disk_settled(live->disk, note, now);
}

static struct tw_error *take_turn(struct tw_live *live, struct tw_digest_turn *turn)
{
	bool told = false;
	do {
		tw_buf_reset(&live->note);
		TW_TRY(tw_disk_digest(live->disk, turn, &live->note));
		if (live->note.len)
			TW_TRY(tell(live));
		told |= live->note.len != 0;
	} while (live->note.len && turn->budget && !tw_live_is_full(live));
	return told ? tw_statefile_flush(live->state) : NULL;
}

struct tw_error *tw_live_digest(struct tw_live *live)
{
	struct tw_digest_turn turn = {.now_ms = tw_live_now_ms(), .budget = TURN_BYTES};
	return may_read(live) && tw_disk_digest_next(live->disk) <= turn.now_ms ? take_turn(live, &turn) : NULL;
}

int tw_live_digest_due(const struct tw_live *live)
{
	const int64_t next = may_read(live) ? tw_disk_digest_next(live->disk) : INT64_MAX;
	const int64_t left = next - tw_live_now_ms();
	if (next == INT64_MAX)
		return -1;
	return left < 0 ? 0 : left < TW_SHA256_QUIET_MAX_MS ? (int)left : TW_SHA256_QUIET_MAX_MS;
}

/* There may be as many as the volume has files. What is sent is in the log. */
static struct tw_error *hand_over(struct tw_live *live, int64_t end)
{
	while (tw_outbox_bytes(live->box) >= TW_LIVE_MAX_WAITING && tw_live_now_ms() < end &&
		tw_uplink_connect(live->link, TW_LIVE_RECONNECT_MS))
		tw_live_pump(live, TW_LIVE_RECONNECT_MS);
	return tw_statefile_wants_snapshot(live->state) ? tw_live_snapshot(live) : NULL;
}

struct tw_error *tw_live_digest_rest(struct tw_live *live)
{
	const int64_t begun = tw_live_now_ms();
	if (!tw_disk_wants_digests(live->disk) || live->resync)
		return NULL;
	while (tw_disk_digests_waiting(live->disk, NULL)) {
		struct tw_digest_turn turn = {.budget = REST_BYTES, .last = true};
		turn.give_up = tw_live_now_ms() >= begun + REST_MS;
		TW_TRY(take_turn(live, &turn));
		TW_TRY(hand_over(live, begun + HAND_OVER_MS));
	}
	return NULL;
}

struct tw_error *tw_live_replay_note(struct tw_live *live, const struct tw_record *record)
{
	/* Its place is in what was missed: the file is waited for again. */
	if (live->resync)
		return NULL;
	struct tw_error *err =
		tw_disk_settled(live->disk, tw_statefile_note(record), tw_time_of(record->time_ns));
	if (!err || tw_error_code(err) != TW_BAD_DATA)
		return err;
	tw_log(TW_LOG_WARN, live->id.vdev, "%s", tw_error_message(err));
	tw_live_need_crawl(live, tw_error_message(err));
	tw_error_destroy(err);
	return NULL;
}
