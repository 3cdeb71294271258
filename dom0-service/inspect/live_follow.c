/* SPDX-License-Identifier: BSD-3-Clause */
/* What the live inspector does with a record, and how it crawls. */
#include "inspect/live_inside.h"

#include "base/log.h"
#include "inspect/attach.h"
#include "inspect/digest.h"
#include "trace.h"

#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

/* A volume is lost when so many crawls in a row, so far apart, do not find it. */
#define MAX_DOUBTS 3
#define DOUBT_NS 200000000l

struct tw_time tw_live_clock(void)
{
	struct timespec ts;
	clock_gettime(CLOCK_REALTIME, &ts);
	return (struct tw_time){ts.tv_sec, (uint32_t)ts.tv_nsec};
}

static bool told_to_end(const struct tw_live *live)
{
	struct pollfd stop = {live->stop_fd, POLLIN, 0};
	return live->stop_fd >= 0 && poll(&stop, 1, 0) > 0;
}

/* One transaction may say more than there should be in memory: its record is in the log, so its
 * first events may go out before the last are made. Not those of a resync, which are in no log
 * before the snapshot. */
static struct tw_error *make_room(struct tw_live *live)
{
	if (tw_outbox_bytes(live->box) < TW_LIVE_MAX_WAITING || live->resync || live->draining ||
		!tw_statefile_has_log(live->state))
		return NULL;
	TW_TRY(tw_statefile_flush(live->state));
	while (tw_outbox_bytes(live->box) >= TW_LIVE_MAX_WAITING && !told_to_end(live)) {
		struct pollfd fd = {-1, POLLIN | POLLOUT, 0};
		if (tw_uplink_connect(live->link, TW_LIVE_RECONNECT_MS))
			fd.fd = tw_uplink_fd(live->link);
		if (tw_live_state_is_old(live))
			return tw_error_create(
				TW_UNAVAILABLE, "the courier has later events than this state");
		tw_uplink_pump(live->link);
		fd.events = tw_outbox_unsent(live->box).len ? POLLIN | POLLOUT : POLLIN;
		poll(&fd, 1, TW_LIVE_RECONNECT_MS);
	}
	return NULL;
}

struct tw_error *tw_live_take_event(const struct tw_event *event, void *arg)
{
	struct tw_live *live = arg;
	/* What the courier has is only counted: a restart makes it again. */
	if (event->sequence <= tw_outbox_acked(live->box))
		return NULL;
	TW_TRY(make_room(live));
	tw_buf_reset(&live->json);
	TW_TRY(tw_encode_event(live->encoder, event, &live->json));
	return tw_outbox_add(live->box, event->sequence, event->type, &live->json);
}

void tw_live_need_resync(struct tw_live *live, const char *reason)
{
	if (live->resync)
		return;
	snprintf(live->reason, sizeof(live->reason), "%s", reason);
	live->resync = live->reason;
}

void tw_live_need_crawl(struct tw_live *live, const char *reason)
{
	tw_live_need_resync(live, reason);
	live->whole = true;
}

/* --- records --- */

/* What the log keeps of a record: its payload only where it counts. */
static struct tw_error *log_record(struct tw_live *live, const struct tw_record *record)
{
	struct tw_record rest = *record;
	if (rest.payload && !tw_disk_wants(live->disk, record)) {
		rest.payload = NULL;
		rest.flags &= ~(uint32_t)TW_RECORD_PAYLOAD;
	}
	while (rest.nsectors > TW_TRACE_MAX_SECTORS) {
		struct tw_record part = rest;
		part.nsectors = TW_TRACE_MAX_SECTORS;
		TW_TRY(tw_statefile_log(live->state, &part));
		rest.sector += part.nsectors;
		rest.nsectors -= part.nsectors;
		if (rest.payload)
			rest.payload = (const uint8_t *)rest.payload +
				       ((size_t)part.nsectors << TW_SECTOR_SHIFT);
	}
	return tw_statefile_log(live->state, &rest);
}

/* Feeds the disk; what it cannot follow makes a resync due. */
struct tw_error *tw_live_feed(struct tw_live *live, const struct tw_record *record)
{
	if (live->content)
		tw_disk_content_at(live->content, record->sequence);
	struct tw_error *err = tw_disk_feed(live->disk, record);
	if (!err || tw_error_code(err) == TW_NOMEM || tw_error_code(err) == TW_IO)
		return err;
	tw_log(TW_LOG_WARN, live->id.vdev, "%s", tw_error_message(err));
	tw_live_need_crawl(live, tw_error_message(err));
	tw_error_destroy(err);
	return tw_missed_add(&live->missed, record);
}

void tw_live_check_layout(struct tw_live *live)
{
	bool changed;
	struct tw_error *err = tw_disk_check_layout(live->disk, &changed);
	if (err)
		tw_log(TW_LOG_WARN, live->id.vdev, "%s", tw_error_message(err));
	tw_error_destroy(err);
	if (!changed || live->whole)
		return;
	tw_live_need_crawl(live, "partitions or file systems have changed");
	/* Tables are written piece by piece: a moment later there is more to see. */
	nanosleep(&(struct timespec){.tv_nsec = DOUBT_NS}, NULL);
}

/* What cannot be done again has to be found by a crawl. */
static struct tw_error *replay_resync(struct tw_live *live, const struct tw_record *record)
{
	struct tw_buf gathered = TW_BUF_INIT;
	struct tw_error *err = tw_statefile_resync(live->state, record, &gathered);
	if (!err)
		err = tw_live_apply_mend(live, tw_span(gathered.data, gathered.len));
	tw_buf_deinit(&gathered);
	if (!err || tw_error_code(err) == TW_NOMEM || tw_error_code(err) == TW_IO)
		return err;
	tw_log(TW_LOG_WARN, live->id.vdev, "%s", tw_error_message(err));
	tw_live_need_crawl(live, tw_error_message(err));
	tw_error_destroy(err);
	return NULL;
}

/* A record of the log: it was followed before, or it stands for writes that were missed. */
struct tw_error *tw_live_replay_record(const struct tw_record *record, void *arg)
{
	struct tw_live *live = arg;
	if (tw_statefile_is_resync(record))
		return replay_resync(live, record);
	if (tw_statefile_is_note(record))
		return tw_live_replay_note(live, record);
	if (!(record->flags & TW_RECORD_GAP) && !live->resync)
		return tw_live_feed(live, record);
	tw_live_need_resync(live, "writes were missed before a restart");
	return tw_missed_add(&live->missed, record);
}

/* A record that is in the crawl, or will be in the next one. */
struct tw_error *tw_live_pass_record(const struct tw_record *record, void *arg)
{
	struct tw_live *live = arg;
	live->position.record = record->sequence;
	if (!record->nsectors || record->flags & TW_RECORD_FLUSH)
		return NULL;
	if (live->content)
		tw_disk_content_forget(live->content);
	if (live->disk)
		tw_disk_digest_restart(live->disk);
	TW_TRY(tw_missed_add(&live->missed, record));
	struct tw_record gap = *record;
	gap.flags = TW_RECORD_GAP;
	gap.payload = NULL;
	/* When nobody watched for a while, ranges say nothing; and the log may be of a smaller
	 * disk. */
	bool counts = tw_statefile_has_log(live->state) && !live->missed.unwatched;
	return counts ? log_record(live, &gap) : NULL;
}

struct gap {
	struct tw_live *live;
	const struct tw_record *record;
	struct tw_error *err;
};

static void pass_gap(uint64_t sector, uint64_t nsectors, void *arg)
{
	struct gap *gap = arg;
	while (nsectors && !gap->err) {
		struct tw_record part = *gap->record;
		part.sector = sector;
		part.nsectors = nsectors < (1u << 30) ? (uint32_t)nsectors : 1u << 30;
		gap->err = tw_live_pass_record(&part, gap->live);
		sector += part.nsectors;
		nsectors -= part.nsectors;
	}
}

struct tw_error *tw_live_expect_record(const struct tw_record *record, void *arg)
{
	struct tw_live *live = arg;
	return live->content ? tw_disk_content_expect(live->content, record) : NULL;
}

void tw_live_caught_up(struct tw_live *live)
{
	if (live->content)
		tw_disk_content_caught_up(live->content);
}

struct tw_error *tw_live_take_gap(struct tw_live *live, const struct tw_record *record)
{
	struct gap gap = {live, record, NULL};
	int ret = tw_ring_take_gap(live->ring, pass_gap, &gap);
	TW_TRY(gap.err);
	if (ret < 0)
		return tw_error_errno(ret, "%s: gap", live->options.ring);
	live->position.record = record->sequence;
	live->status.gaps++;
	tw_live_need_resync(live, "the ring had no room");
	return NULL;
}

struct tw_error *tw_live_take_record(const struct tw_record *record, void *arg)
{
	struct tw_live *live = arg;
	/* Logged by an inspector that was killed before it gave the space back. */
	if (record->sequence <= live->position.record && !(record->flags & TW_RECORD_GAP))
		return NULL;
	if (live->position.record && record->sequence > live->position.record + 1)
		tw_live_need_crawl(live, "records are missing in the ring");
	/* A range of a gap that came during a crawl, and that the crawl did not read. */
	if (record->flags & TW_RECORD_GAP)
		tw_live_need_resync(live, "the ring had no room");
	/* Nothing is followed that may be in another place than it was. */
	if (!live->resync && !live->stale && tw_disk_map_written(live->disk))
		tw_live_check_layout(live);
	if (live->resync)
		return tw_live_pass_record(record, live);
	if (live->stale)
		return NULL; /* the next crawl has it */
	TW_TRY(log_record(live, record));
	live->position.record = record->sequence;
	live->unsettled = !(record->flags & TW_RECORD_FLUSH);
	return tw_live_feed(live, record);
}

/* --- crawls --- */

struct tw_error *tw_live_snapshot(struct tw_live *live)
{
	return tw_statefile_snapshot(live->state, live->disk, live->box, &live->position);
}

/* The crawl is there: it becomes the state, or the state is moved to it. From here on a restart
 * begins with it. */
static struct tw_error *crawled(struct tw_disk *newer, void *arg)
{
	struct tw_live *live = arg;
	struct tw_time now = tw_live_clock();
	/* Then what it read may be newer than all that is in the ring. */
	live->stale = live->options.mirror && !tw_ring_reader_producer_alive(live->ring);
	if (live->stale) {
		tw_disk_destroy(newer);
		return NULL;
	}
	if (live->disk && live->doubts < MAX_DOUBTS && tw_disk_lost_volumes(live->disk, newer)) {
		live->doubts++; /* and the resync stays due */
		tw_disk_destroy(newer);
		return NULL;
	}
	live->doubts = 0;
	bool again = live->ring && memcmp(live->position.ring, tw_ring_reader_id(live->ring),
					   TW_RING_ID_BYTES) != 0;
	if (live->ring)
		memcpy(live->position.ring, tw_ring_reader_id(live->ring), TW_RING_ID_BYTES);
	if (live->content)
		tw_disk_content_at(live->content, live->position.record);
	if (!live->disk) {
		live->disk = newer;
		tw_disk_set_content(live->disk, live->content);
		TW_TRY(tw_disk_attached(live->disk, now));
	} else {
		if (again)
			TW_TRY(tw_disk_attached(live->disk, now));
		TW_TRY(tw_disk_resync(live->disk, newer, &live->missed, now, live->reason));
		live->status.resyncs++;
	}
	tw_missed_clear(&live->missed);
	live->resync = NULL;
	live->whole = false;
	return tw_live_snapshot(live);
}

struct tw_error *tw_live_keep_log(void *arg)
{
	struct tw_live *live = arg;
	if (tw_statefile_has_log(live->state))
		TW_TRY(tw_statefile_flush(live->state));
	/* A crawl may take long while the guest writes; without it this is the last one, and
	 * needed. */
	if (told_to_end(live) && tw_ring_reader_producer_alive(live->ring))
		return tw_error_create(TW_UNAVAILABLE, "told to end in the middle of a crawl");
	return NULL;
}

/* The dirty map, or the log, has all that was missed, and the view is what it was before that. A
 * mirror's image may not have it yet. */
static bool can_mend(const struct tw_live *live)
{
	return live->disk && live->resync && !live->whole && !live->missed.unwatched &&
	       !live->options.mirror && !live->doubts && tw_statefile_has_log(live->state);
}

static struct tw_error *attach(struct tw_live *live, const struct tw_attach_ops *ops)
{
	live->stale = live->options.mirror; /* until it is known not to be */
	if (live->options.mirror)
		return tw_attach_mirror(live->options.image, live->id.vdev, live->ring,
			TW_ATTACH_KEEP_BYTES, tw_live_take_event, live, ops);
	return tw_attach(live->options.image, live->id.vdev, live->ring, tw_live_take_event, live,
		ops);
}

struct tw_error *tw_live_crawl(struct tw_live *live)
{
	struct tw_attach_ops ops = {
		{tw_live_pass_record, tw_live_keep_log, live}, tw_live_expect_record, crawled,
		tw_live_take_record};
	live->status.state = live->disk ? "resync" : "crawling";
	tw_live_status_write(&live->status, live->state);
	if (live->disk)
		tw_log(TW_LOG_INFO, live->id.vdev, "resync: %s", live->reason);
	if (can_mend(live)) {
		TW_TRY(tw_live_mend(live));
		live->status.state = "live";
		if (!live->whole)
			return NULL;
		live->status.state = "resync";
	}
	tw_interest_reset(live->interest, live->ring);
	do {
		if (live->doubts)
			nanosleep(&(struct timespec){.tv_nsec = DOUBT_NS}, NULL);
		TW_TRY(tw_live_await_session(live));
		TW_TRY(attach(live, &ops));
		tw_live_caught_up(live);
	} while (live->doubts || live->stale);
	live->status.state = "live";
	tw_live_status_places(&live->status, live->disk);
	return NULL;
}

struct tw_error *tw_live_give_back(struct tw_live *live)
{
	TW_TRY(tw_statefile_flush(live->state));
	tw_ring_release(live->ring);
	return NULL;
}

struct tw_error *tw_live_take_open_gap(struct tw_live *live)
{
	struct tw_record none = {.sequence = live->position.record};
	struct gap gap = {live, &none, NULL};
	int ret = tw_ring_take_open_gap(live->ring, pass_gap, &gap);
	TW_TRY(gap.err);
	if (ret <= 0)
		return NULL;
	live->status.gaps++;
	tw_live_need_resync(live, "the ring had no room");
	return NULL;
}

struct tw_error *tw_live_close_gap(struct tw_live *live)
{
	TW_TRY(tw_live_take_open_gap(live));
	if (!live->resync)
		return NULL;
	TW_TRY(tw_live_crawl(live));
	return tw_live_give_back(live);
}
