/* SPDX-License-Identifier: BSD-3-Clause */
#include "inspect/live_inside.h"

#include "base/log.h"
#include "inspect/digest.h"

#include <poll.h>
#include <string.h>
#include <time.h>

/* So many records are followed before their events are sent and their space is given back. */
#define MAX_STEP 512
/* File data without a transaction is told of when the disk has been idle for so long. */
#define IDLE_MS 1000
/* The end of a mirror's session rings no bell. */
#define SESSION_MS 100
/* How long a stopping inspector waits for the courier; what is left is in the snapshot. */
#define FAREWELL_MS 5000

int64_t tw_live_now_ms(void)
{
	struct timespec ts;
	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

/* The last drain takes everything: what the courier does not take goes into the snapshot. */
bool tw_live_is_full(const struct tw_live *live)
{
	return !live->draining && tw_outbox_bytes(live->box) >= TW_LIVE_MAX_WAITING;
}

/* Follows some records. *n: how many came. */
static struct tw_error *step(struct tw_live *live, unsigned *n)
{
	struct tw_record record;
	int ret = 0;
	*n = 0;
	while (*n < MAX_STEP && !live->resync && !tw_live_is_full(live) &&
		(ret = tw_ring_next(live->ring, &record)) > 0) {
		++*n;
		TW_TRY(record.flags & TW_RECORD_GAP ? tw_live_take_gap(live, &record)
						    : tw_live_take_record(&record, live));
	}
	if (ret < 0)
		return tw_error_errno(ret, "%s", live->options.ring);
	if (*n)
		TW_TRY(tw_live_give_back(live));
	else if (!live->resync)
		TW_TRY(tw_live_next_session(live));
	bool may = false;
	if (live->resync && !tw_live_is_full(live))
		TW_TRY(tw_live_may_crawl(live, &may));
	if (may) {
		TW_TRY(tw_live_crawl(live));
		TW_TRY(tw_live_give_back(live));
	}
	TW_TRY(tw_interest_update(live->interest, live->ring, live->disk));
	tw_uplink_pump(live->link);
	if (tw_statefile_wants_snapshot(live->state))
		TW_TRY(tw_live_snapshot(live));
	return NULL;
}

static struct tw_error *settle(struct tw_live *live)
{
	struct tw_time t = tw_live_clock();
	uint64_t now = (uint64_t)t.sec * 1000000000u + t.nsec;
	/* Logged like a guest's flush, so that a replay does the same at the same place. */
	struct tw_record flush = {live->position.record, now, 0, 0, TW_RECORD_FLUSH, NULL};
	live->unsettled = false;
	TW_TRY(tw_statefile_log(live->state, &flush));
	TW_TRY(tw_statefile_flush(live->state));
	return tw_live_feed(live, &flush);
}

static void update_status(struct tw_live *live)
{
	struct tw_disk_stats stats;
	tw_disk_stats(live->disk, &stats);
	live->status.volumes = stats.volumes;
	live->status.files = stats.inodes;
	live->status.events = stats.events;
	live->status.read_bytes = stats.read_bytes;
	struct tw_ring_stats ring;
	tw_ring_reader_stats(live->ring, &ring);
	live->status.captured_bytes = ring.payload_bytes;
	live->status.spared_bytes = ring.spared_bytes;
	live->status.lag_bytes = tw_ring_reader_backlog(live->ring);
	live->status.digests = tw_disk_digests_waiting(live->disk, &live->status.late_digests);
	live->status.waiting_bytes = tw_outbox_bytes(live->box);
	live->status.courier = tw_uplink_up(live->link);
	tw_live_status_write(&live->status, live->state);
}

/* Sleeps until there is something to do. *stop: the stop_fd is readable. */
static void sleep_until_work(struct tw_live *live, int stop_fd, int timeout_ms, bool *stop)
{
	struct pollfd fds[3] = {
		{stop_fd, POLLIN, 0},
		{tw_uplink_fd(live->link), POLLIN, 0},
		{tw_ring_bell_fd(live->ring), POLLIN, 0},
	};
	/* Nor is there anything to do for a record while a mirror's next session is waited for. */
	bool full = tw_live_is_full(live) || (live->resync && live->options.mirror);
	if (tw_outbox_unsent(live->box).len && tw_uplink_up(live->link))
		fds[1].events |= POLLOUT;
	if (!full && tw_ring_arm(live->ring))
		timeout_ms = 0;
	poll(fds, full ? 2 : 3, timeout_ms);
	if (!full)
		tw_ring_disarm(live->ring);
	*stop = fds[0].revents != 0;
}

/* -1: never. */
static int sooner(int a, int b)
{
	return b < 0 || (a >= 0 && a < b) ? a : b;
}

void tw_live_pump(struct tw_live *live, int ms)
{
	struct pollfd fd = {tw_uplink_fd(live->link), POLLIN, 0};
	tw_uplink_pump(live->link);
	if (tw_outbox_unsent(live->box).len)
		fd.events |= POLLOUT;
	if (tw_outbox_bytes(live->box))
		poll(&fd, 1, ms);
}

static struct tw_error *farewell(struct tw_live *live)
{
	unsigned n;
	live->stop_fd = -1;
	live->draining = true;
	do {
		TW_TRY(step(live, &n));
		if (!n)
			tw_live_check_layout(live);
	} while (n || (live->resync && !live->options.mirror));
	/* A mirror's guest goes on: the next session begins with a crawl. */
	if (!live->options.mirror)
		TW_TRY(tw_live_close_gap(live));
	/* What a guest that goes on has begun is kept, and whole after the next start. */
	bool gone = !tw_ring_reader_producer_alive(live->ring);
	TW_TRY(tw_disk_settle(live->disk, tw_live_clock(), gone));
	if (gone) {
		/* The log has the notes that come, and not what has just been settled: it begins anew. */
		if (tw_disk_digests_waiting(live->disk, NULL))
			TW_TRY(tw_live_snapshot(live));
		TW_TRY(tw_live_digest_rest(live));
		TW_TRY(tw_disk_detached(live->disk, tw_live_clock()));
		/* Whoever takes the ring over, it is another life of the disk: nobody saw what lies between. */
		memset(live->position.ring, 0, sizeof(live->position.ring));
	}
	TW_TRY(tw_live_snapshot(live));
	int64_t end = tw_live_now_ms() + FAREWELL_MS;
	while (tw_outbox_bytes(live->box) && tw_live_now_ms() < end) {
		if (!tw_uplink_connect(live->link, TW_LIVE_RECONNECT_MS)) {
			poll(NULL, 0, TW_LIVE_RECONNECT_MS);
			continue;
		}
		tw_live_pump(live, 100);
	}
	live->status.state = "stopped";
	live->status.written_ms = 0;
	update_status(live);
	return NULL;
}

struct tw_error *tw_live_run(struct tw_live *live, int stop_fd)
{
	int64_t last_record = tw_live_now_ms(), last_dial = 0, last_look = tw_live_now_ms();
	bool stop = false;
	live->stop_fd = stop_fd;
	while (!stop) {
		unsigned n;
		TW_TRY(step(live, &n));
		TW_TRY(tw_live_digest(live));
		int64_t now = tw_live_now_ms();
		if (n)
			last_record = now;
		if (!tw_uplink_up(live->link) && now - last_dial >= TW_LIVE_RECONNECT_MS) {
			last_dial = now;
			tw_uplink_connect(live->link, TW_LIVE_RECONNECT_MS);
			/* The next start knows it in time. */
			if (tw_live_state_is_old(live))
				return tw_error_create(TW_UNAVAILABLE,
					"the courier has later events than this state");
		}
		if (live->unsettled && now - last_record >= IDLE_MS)
			TW_TRY(settle(live));
		if (now - last_look >= IDLE_MS) {
			last_look = now;
			tw_live_check_layout(live);
		}
		update_status(live);
		int timeout = tw_live_status_due(&live->status);
		bool waits = live->unsettled || tw_disk_layout_written(live->disk);
		if (waits && (timeout < 0 || timeout > IDLE_MS))
			timeout = IDLE_MS;
		timeout = sooner(timeout, tw_live_digest_due(live));
		if (!tw_uplink_up(live->link))
			timeout = sooner(timeout, TW_LIVE_RECONNECT_MS);
		if (live->options.mirror && (timeout < 0 || timeout > SESSION_MS))
			timeout = SESSION_MS;
		if (n == MAX_STEP || (tw_uplink_up(live->link) && n) ||
			(live->resync && !live->options.mirror))
			timeout = 0;
		sleep_until_work(live, stop_fd, timeout, &stop);
	}
	return farewell(live);
}
