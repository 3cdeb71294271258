/* SPDX-License-Identifier: BSD-3-Clause */
#include "inspect/live.h"

#include "base/log.h"
#include "inspect/attach.h"
#include "inspect/live_status.h"
#include "inspect/statefile.h"
#include "inspect/uplink.h"
#include "trace.h"
#include "volume/missed.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

/* With so many bytes of events waiting for the courier, the ring has to wait, and then the dirty map. */
#define MAX_WAITING (64u << 20)
/* So many records are followed before their events are sent and their space is given back. */
#define MAX_STEP 512
/* File data without a transaction is told of when the disk has been idle for so long. */
#define IDLE_MS 1000
#define RECONNECT_MS 200
/* A volume is lost when so many crawls in a row, so far apart, do not find it. */
#define MAX_DOUBTS 3
#define DOUBT_NS 200000000l
/* How long a stopping inspector waits for the courier; what is left is in the snapshot. */
#define FAREWELL_MS 5000

struct tw_live {
	struct tw_live_options options;
	struct tw_disk_id id;
	struct tw_state_position position;
	struct tw_disk *disk;
	struct tw_ring_reader *ring;
	struct tw_outbox *box;
	struct tw_uplink *link;
	struct tw_statefile *state;
	struct tw_buf json;
	struct tw_missed missed; /* ranges of which writes were not followed, until the next resync */
	const char *resync;	 /* the reason why one is due, or NULL */
	char reason[256];
	int stop_fd;
	unsigned doubts; /* crawls in a row that did not find a volume that was there */
	bool unsettled; /* records were followed since the last flush */
	struct tw_live_status status;
};

static int64_t now_ms(void)
{
	struct timespec ts;
	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

static struct tw_time clock_now(void)
{
	struct timespec ts;
	clock_gettime(CLOCK_REALTIME, &ts);
	return (struct tw_time){ ts.tv_sec, (uint32_t)ts.tv_nsec };
}

static struct tw_error *take_event(const struct tw_event *event, void *arg)
{
	struct tw_live *live = arg;
	tw_buf_reset(&live->json);
	TW_TRY(tw_event_encode(event, &live->id, &live->json));
	return tw_outbox_add(live->box, event->sequence, event->type, &live->json);
}

static struct tw_error *create_disk(struct tw_live *live)
{
	return tw_disk_create(live->options.image, live->options.id.vdev, take_event, live,
		&live->disk);
}

static void need_resync(struct tw_live *live, const char *reason)
{
	if (live->resync)
		return;
	snprintf(live->reason, sizeof(live->reason), "%s", reason);
	live->resync = live->reason;
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
static struct tw_error *feed(struct tw_live *live, const struct tw_record *record)
{
	struct tw_error *err = tw_disk_feed(live->disk, record);
	if (!err || tw_error_code(err) == TW_NOMEM || tw_error_code(err) == TW_IO)
		return err;
	tw_log(TW_LOG_WARN, live->id.vdev, "%s", tw_error_message(err));
	need_resync(live, tw_error_message(err));
	tw_error_destroy(err);
	return NULL;
}

/* A record of the log: it was followed before, or it stands for writes that were missed. */
static struct tw_error *replay_record(const struct tw_record *record, void *arg)
{
	struct tw_live *live = arg;
	if (!(record->flags & TW_RECORD_GAP) && !live->resync)
		return feed(live, record);
	need_resync(live, "writes were missed before a restart");
	return tw_missed_add(&live->missed, record);
}

/* A record that is in the crawl, or will be in the next one. */
static struct tw_error *pass_record(const struct tw_record *record, void *arg)
{
	struct tw_live *live = arg;
	live->position.record = record->sequence;
	if (!record->nsectors || record->flags & TW_RECORD_FLUSH)
		return NULL;
	TW_TRY(tw_missed_add(&live->missed, record));
	struct tw_record gap = *record;
	gap.flags = TW_RECORD_GAP;
	gap.payload = NULL;
	/* When nobody watched for a while, ranges say nothing; and the log may be of a smaller disk. */
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
		gap->err = pass_record(&part, gap->live);
		sector += part.nsectors;
		nsectors -= part.nsectors;
	}
}

static struct tw_error *take_gap(struct tw_live *live, const struct tw_record *record)
{
	struct gap gap = { live, record, NULL };
	int ret = tw_ring_take_gap(live->ring, pass_gap, &gap);
	TW_TRY(gap.err);
	if (ret < 0)
		return tw_error_errno(ret, "%s: gap", live->options.ring);
	live->position.record = record->sequence;
	live->status.gaps++;
	need_resync(live, "the ring had no room");
	return NULL;
}

static struct tw_error *take_record(const struct tw_record *record, void *arg)
{
	struct tw_live *live = arg;
	/* Logged by an inspector that was killed before it gave the space back. */
	if (record->sequence <= live->position.record && !(record->flags & TW_RECORD_GAP))
		return NULL;
	if (live->position.record && record->sequence > live->position.record + 1)
		need_resync(live, "records are missing in the ring");
	if (live->resync)
		return pass_record(record, live);
	TW_TRY(log_record(live, record));
	live->position.record = record->sequence;
	live->unsettled = !(record->flags & TW_RECORD_FLUSH);
	return feed(live, record);
}

/* --- crawls --- */

static struct tw_error *snapshot(struct tw_live *live)
{
	return tw_statefile_snapshot(live->state, live->disk, live->box, &live->position);
}

/* The crawl is there: it becomes the state, or the state is moved to it. From here on a restart begins with it. */
static struct tw_error *crawled(struct tw_disk *newer, void *arg)
{
	struct tw_live *live = arg;
	struct tw_time now = clock_now();
	if (live->disk && live->doubts < MAX_DOUBTS && tw_disk_lost_volumes(live->disk, newer)) {
		live->doubts++; /* and the resync stays due */
		tw_disk_destroy(newer);
		return NULL;
	}
	live->doubts = 0;
	bool again = live->ring &&
		memcmp(live->position.ring, tw_ring_reader_id(live->ring), TW_RING_ID_BYTES) != 0;
	if (live->ring)
		memcpy(live->position.ring, tw_ring_reader_id(live->ring), TW_RING_ID_BYTES);
	if (!live->disk) {
		live->disk = newer;
		TW_TRY(tw_disk_attached(live->disk, now));
	} else {
		if (again)
			TW_TRY(tw_disk_attached(live->disk, now));
		TW_TRY(tw_disk_resync(live->disk, newer, &live->missed, now, live->reason));
		live->status.resyncs++;
	}
	tw_missed_clear(&live->missed);
	live->resync = NULL;
	return snapshot(live);
}

static struct tw_error *keep_log(void *arg)
{
	struct tw_live *live = arg;
	struct pollfd stop = { live->stop_fd, POLLIN, 0 };
	if (tw_statefile_has_log(live->state))
		TW_TRY(tw_statefile_flush(live->state));
	/* A crawl may take long. */
	if (live->stop_fd >= 0 && poll(&stop, 1, 0) > 0)
		return tw_error_create(TW_UNAVAILABLE, "told to end in the middle of a crawl");
	return NULL;
}

static struct tw_error *crawl(struct tw_live *live)
{
	struct tw_attach_ops ops = { pass_record, keep_log, crawled, take_record, live };
	live->status.state = live->disk ? "resync" : "crawling";
	tw_live_status_write(&live->status, live->state);
	if (live->disk)
		tw_log(TW_LOG_INFO, live->id.vdev, "resync: %s", live->reason);
	do {
		if (live->doubts)
			nanosleep(&(struct timespec){ .tv_nsec = DOUBT_NS }, NULL);
		TW_TRY(tw_attach(live->options.image, live->id.vdev, live->ring, take_event, live,
			&ops));
	} while (live->doubts);
	live->status.state = "live";
	return NULL;
}

/* --- start --- */

static struct tw_error *load(struct tw_live *live)
{
	bool found;
	TW_TRY(create_disk(live));
	struct tw_error *err = tw_statefile_load(live->state, live->disk, live->box,
		&live->position, &found);
	if (!err && found)
		return NULL;
	if (err && tw_error_code(err) != TW_BAD_DATA && tw_error_code(err) != TW_UNSUPPORTED)
		return err;
	if (err)
		tw_log(TW_LOG_ERROR, live->id.vdev, "%s: starting anew, with a new epoch",
			tw_error_message(err));
	tw_error_destroy(err);
	tw_disk_destroy(live->disk);
	tw_outbox_destroy(live->box);
	live->disk = NULL;
	live->box = NULL;
	memset(&live->position, 0, sizeof(live->position));
	return tw_outbox_create(&live->box);
}

static struct tw_error *new_epoch(struct tw_live *live)
{
	uint8_t random[(TW_EPOCH_BYTES - 1) / 2];
	if (getrandom(random, sizeof(random), 0) != sizeof(random))
		return tw_error_errno(errno, "getrandom");
	for (size_t i = 0; i < sizeof(random); i++)
		snprintf(live->position.epoch + 2 * i, 3, "%02x", random[i]);
	return NULL;
}

static struct tw_error *open_ring(struct tw_live *live)
{
	int ret = tw_ring_reader_open(live->options.ring, &live->ring);
	if (ret == -EBUSY)
		return tw_error_create(TW_UNAVAILABLE, "%s: another inspector reads this ring",
			live->options.ring);
	if (ret < 0)
		return tw_error_errno(ret, "%s", live->options.ring);
	return NULL;
}

static struct tw_error *connect_courier(struct tw_live *live)
{
	struct tw_buf source = TW_BUF_INIT;
	tw_disk_source(&live->id, &source);
	tw_buf_append(&source, "", 1);
	struct tw_error *err = source.failed ?
		tw_error_nomem() :
		tw_uplink_create(live->options.courier, live->position.epoch, source.data,
			live->box, &live->link);
	tw_buf_deinit(&source);
	TW_TRY(err);
	tw_uplink_connect(live->link, 2000);
	return NULL;
}

/* The courier has events that the state knows nothing of: it is older than what was sent (dom0 went down, or the
 * directory is a copy). Their numbers are used up. */
static bool state_is_old(const struct tw_live *live)
{
	return tw_outbox_acked(live->box) > tw_disk_sequence(live->disk);
}

/* Goes on from the snapshot by the log. */
static struct tw_error *replay(struct tw_live *live)
{
	TW_TRY(tw_statefile_replay(live->state, tw_disk_loaded_bytes(live->disk), &live->position,
		replay_record, live));
	if (tw_disk_loaded_bytes(live->disk) != tw_disk_bytes(live->disk)) {
		live->missed.unwatched = true;
		need_resync(live, "the disk was resized");
	}
	return NULL;
}

/* With another ring the log may be short of what was sent: the courier has to say what it has, before new events get
 * numbers. */
static struct tw_error *ask_courier(struct tw_live *live)
{
	live->status.state = "waiting for the courier";
	while (!tw_uplink_connect(live->link, RECONNECT_MS)) {
		struct pollfd stop = { live->stop_fd, POLLIN, 0 };
		tw_live_status_write(&live->status, live->state);
		if (poll(&stop, 1, RECONNECT_MS) > 0)
			return tw_error_create(TW_UNAVAILABLE,
				"told to end before the courier was there");
	}
	if (!state_is_old(live))
		return NULL;
	tw_disk_set_sequence(live->disk, tw_outbox_acked(live->box));
	tw_log(TW_LOG_WARN, live->id.vdev, "the saved state is older than what was sent");
	return NULL;
}

struct tw_error *tw_live_start(struct tw_live *live, int stop_fd)
{
	live->stop_fd = stop_fd;
	TW_TRY(load(live));
	bool known = live->disk != NULL;
	if (!known)
		TW_TRY(new_epoch(live));
	live->id.epoch = live->position.epoch;
	TW_TRY(connect_courier(live));
	if (known)
		TW_TRY(replay(live));
	live->unsettled = known;
	TW_TRY(open_ring(live));
	if (known && memcmp(live->position.ring, tw_ring_reader_id(live->ring), TW_RING_ID_BYTES)) {
		live->position.record = 0;
		live->missed.unwatched = true;
		need_resync(live, "the disk was not watched for a while");
		TW_TRY(ask_courier(live));
	}
	if (!known || live->resync)
		TW_TRY(crawl(live));
	live->status.state = "live";
	tw_live_status_write(&live->status, live->state);
	return NULL;
}

struct tw_error *tw_live_create(const struct tw_live_options *options, struct tw_live **out)
{
	struct tw_live *live = calloc(1, sizeof(*live));
	if (!live)
		return tw_error_nomem();
	live->options = *options;
	live->id = options->id;
	live->status.state = "starting";
	live->stop_fd = -1;
	struct tw_error *err = tw_outbox_create(&live->box);
	if (!err)
		err = tw_statefile_create(options->state, &live->state);
	if (err) {
		tw_live_destroy(live);
		return err;
	}
	*out = live;
	return NULL;
}

void tw_live_destroy(struct tw_live *live)
{
	if (!live)
		return;
	tw_disk_destroy(live->disk);
	if (live->ring)
		tw_ring_reader_destroy(live->ring);
	tw_uplink_destroy(live->link);
	tw_outbox_destroy(live->box);
	tw_statefile_destroy(live->state);
	tw_missed_clear(&live->missed);
	tw_buf_deinit(&live->json);
	free(live);
}

/* --- run --- */

/* What was followed is in the log: the ring may forget it. Nothing is sent before. */
static struct tw_error *give_back(struct tw_live *live)
{
	TW_TRY(tw_statefile_flush(live->state));
	tw_ring_release(live->ring);
	return NULL;
}

/* Follows some records. *n: how many came. */
static struct tw_error *step(struct tw_live *live, unsigned *n)
{
	struct tw_record record;
	int ret = 0;
	*n = 0;
	while (*n < MAX_STEP && !live->resync && tw_outbox_bytes(live->box) < MAX_WAITING &&
		(ret = tw_ring_next(live->ring, &record)) > 0) {
		++*n;
		TW_TRY(record.flags & TW_RECORD_GAP ? take_gap(live, &record) :
						      take_record(&record, live));
	}
	if (ret < 0)
		return tw_error_errno(ret, "%s", live->options.ring);
	if (*n)
		TW_TRY(give_back(live));
	if (live->resync) {
		TW_TRY(crawl(live));
		TW_TRY(give_back(live));
	}
	tw_uplink_pump(live->link);
	if (tw_statefile_wants_snapshot(live->state))
		TW_TRY(snapshot(live));
	return NULL;
}

static struct tw_error *settle(struct tw_live *live)
{
	uint64_t now = 0;
	struct tw_time t = clock_now();
	now = (uint64_t)t.sec * 1000000000u + t.nsec;
	/* Logged like a guest's flush, so that a replay does the same at the same place. */
	struct tw_record flush = { live->position.record, now, 0, 0, TW_RECORD_FLUSH, NULL };
	live->unsettled = false;
	TW_TRY(tw_statefile_log(live->state, &flush));
	TW_TRY(tw_statefile_flush(live->state));
	return feed(live, &flush);
}

/* Not a part of feeding: what is found depends on when one looks. */
static struct tw_error *check_layout(struct tw_live *live)
{
	bool changed;
	struct tw_error *err = tw_disk_check_layout(live->disk, &changed);
	if (err)
		tw_log(TW_LOG_WARN, live->id.vdev, "%s", tw_error_message(err));
	tw_error_destroy(err);
	if (changed)
		need_resync(live, "partitions or file systems have changed");
	return NULL;
}

static void update_status(struct tw_live *live)
{
	struct tw_disk_stats stats;
	tw_disk_stats(live->disk, &stats);
	live->status.volumes = stats.volumes;
	live->status.files = stats.inodes;
	live->status.events = stats.events;
	live->status.lag_bytes = tw_ring_reader_backlog(live->ring);
	live->status.waiting_bytes = tw_outbox_bytes(live->box);
	live->status.courier = tw_uplink_up(live->link);
	tw_live_status_write(&live->status, live->state);
}

/* Sleeps until there is something to do. *stop: the stop_fd is readable. */
static void sleep_until_work(struct tw_live *live, int stop_fd, int timeout_ms, bool *stop)
{
	struct pollfd fds[3] = {
		{ stop_fd, POLLIN, 0 },
		{ tw_uplink_fd(live->link), POLLIN, 0 },
		{ tw_ring_bell_fd(live->ring), POLLIN, 0 },
	};
	bool full = tw_outbox_bytes(live->box) >= MAX_WAITING;
	if (tw_outbox_unsent(live->box).len && tw_uplink_up(live->link))
		fds[1].events |= POLLOUT;
	if (!full && tw_ring_arm(live->ring))
		timeout_ms = 0;
	poll(fds, full ? 2 : 3, timeout_ms);
	if (!full)
		tw_ring_disarm(live->ring);
	*stop = fds[0].revents != 0;
}

/* The capture point has gone and left a gap that it could not announce. */
static struct tw_error *close_gap(struct tw_live *live)
{
	struct tw_record none = { .sequence = live->position.record };
	struct gap gap = { live, &none, NULL };
	int ret = tw_ring_take_open_gap(live->ring, pass_gap, &gap);
	TW_TRY(gap.err);
	if (ret <= 0)
		return NULL;
	live->status.gaps++;
	need_resync(live, "the ring had no room");
	TW_TRY(crawl(live));
	return give_back(live);
}

static struct tw_error *farewell(struct tw_live *live)
{
	unsigned n;
	live->stop_fd = -1;
	do
		TW_TRY(step(live, &n));
	while (n);
	TW_TRY(close_gap(live));
	TW_TRY(tw_disk_settle(live->disk, clock_now(), true));
	if (!tw_ring_reader_producer_alive(live->ring))
		TW_TRY(tw_disk_detached(live->disk, clock_now()));
	TW_TRY(snapshot(live));
	int64_t end = now_ms() + FAREWELL_MS;
	while (tw_outbox_bytes(live->box) && tw_uplink_up(live->link) && now_ms() < end) {
		struct pollfd pfd = { tw_uplink_fd(live->link), POLLIN, 0 };
		tw_uplink_pump(live->link);
		if (tw_outbox_unsent(live->box).len)
			pfd.events |= POLLOUT;
		if (tw_outbox_bytes(live->box))
			poll(&pfd, 1, 100);
	}
	live->status.state = "stopped";
	live->status.written_ms = 0;
	update_status(live);
	return NULL;
}

struct tw_error *tw_live_run(struct tw_live *live, int stop_fd)
{
	int64_t last_record = now_ms(), last_dial = 0, last_look = now_ms();
	bool stop = false;
	live->stop_fd = stop_fd;
	while (!stop) {
		unsigned n;
		TW_TRY(step(live, &n));
		int64_t now = now_ms();
		if (n)
			last_record = now;
		if (!tw_uplink_up(live->link) && now - last_dial >= RECONNECT_MS) {
			last_dial = now;
			tw_uplink_connect(live->link, RECONNECT_MS);
			/* The next start knows it in time. */
			if (state_is_old(live))
				return tw_error_create(TW_UNAVAILABLE,
					"the courier has later events than this state");
		}
		if (live->unsettled && now - last_record >= IDLE_MS)
			TW_TRY(settle(live));
		if (now - last_look >= IDLE_MS) {
			last_look = now;
			TW_TRY(check_layout(live));
		}
		update_status(live);
		int timeout = tw_live_status_due(&live->status);
		if (live->unsettled && (timeout < 0 || timeout > IDLE_MS))
			timeout = IDLE_MS;
		if (!tw_uplink_up(live->link))
			timeout = RECONNECT_MS;
		if (n == MAX_STEP || (tw_uplink_up(live->link) && n))
			timeout = 0;
		sleep_until_work(live, stop_fd, timeout, &stop);
	}
	return farewell(live);
}
