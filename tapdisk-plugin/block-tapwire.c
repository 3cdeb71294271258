/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The capture point inside tapdisk: a filter driver that is put above an image by a chain
 * ("x-chain:FILE" with the lines "tapwire:NAME" and, say, "vhd:IMAGE"). Reads and block status go to
 * the image below as they are; of writes, the completion is caught: what succeeded is published into
 * the ring before the completion goes on to tapdisk. See docs/ring.md and INSTALL.
 *
 * What goes wrong with capture is logged, counted and shown by `tap-ctl stats`; it fails neither an
 * open nor a request, and nothing here waits.
 *
 * TW_BLKTAP: tapdisk's own headers; without it, the project's declarations of the same.
 */
#ifdef TW_BLKTAP
#include "tapdisk.h"
#include "tapdisk-driver.h"
#include "tapdisk-image.h"
#include "tapdisk-interface.h"
#include "tapdisk-server.h"
#include "tapdisk-vbd.h"
#else
#include "tapdisk-api.h"
#endif

#include "flights.h"
#include "ring.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct td_vbd_encryption; /* older headers do not have it */

#ifndef TW_RING_DIR
#define TW_RING_DIR "/run/tapwire/rings"
#endif

#define MAX_NAME 64
#define GAP_POLL_MS 20
/* Without a ring: for what may come any time, and for what costs something to try. */
#define RETRY_SOON_MS 2000
#define RETRY_LATER_MS 60000
#define NEVER_MS (-1)

/* Writes beyond those that have a place of their own; those of one origin share one. */
#define SHARED_WRITES 8u

/* A write on its way down, or several of the same origin. */
struct write {
	struct tap *tap;
	td_callback_t cb;
	void *cb_data;
	uint64_t left; /* sectors that are not completed yet */
	bool shared;
};

struct counters {
	uint64_t writes;   /* completed well, or parts of them */
	uint64_t unsure;   /* came back with others' content on them, perhaps: went to the dirty map */
	uint64_t failed;   /* completed with an error */
	uint64_t uncaught; /* of writes: there was no ring */
	uint64_t shared;   /* had no place of their own */
	uint64_t refused;  /* sent back with EBUSY: tapdisk issues them again */
	uint64_t attached; /* times that a ring was opened */
};

/* An open image, from td_validate_parent until td_close and the last completion. */
struct tap {
	struct tw_ring *ring; /* NULL: writes pass uncaught */
	td_driver_t *below;
	bool closed;
	int error; /* why there is no ring */
	event_id_t timer;
	int timer_ms;
	struct counters n;
	char path[PATH_MAX];
	uint64_t disk_bytes, ring_bytes;
	struct flights flights;
	struct write writes[FLIGHTS_MAX]; /* by place */
};

/* Tapdisk's memory: it may be freed without td_close, so it owns nothing before td_validate_parent. */
struct tapwire {
	struct tap *tap;
	char name[MAX_NAME + 1]; /* empty: nothing is captured */
	uint64_t ring_bytes;
	bool readonly;
	uint64_t uncaught; /* writes without a tap */
};

/* --- the name --- */

/* It becomes a directory's name, and part of JSON. */
static bool good_name(const char *name, size_t len)
{
	static const char good[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
				   "0123456789._-";
	return len > 0 && len <= MAX_NAME && name[0] != '.' && strspn(name, good) >= len;
}

/* "64M"; 0 for what is no size of a ring. */
static uint64_t parse_size(const char *text)
{
	char *end;
	errno = 0;
	const unsigned long long n = strtoull(text, &end, 10);
	const char *unit = *end ? strchr("KMG", *end) : "";
	if (errno || end == text || text[0] == '-' || !unit || (*end && end[1]))
		return 0;
	const unsigned shift = *end ? 10 * (unsigned)(*end == 'K' ? 1 : *end == 'M' ? 2 : 3) : 0;
	return n < TW_RING_MIN_BYTES >> shift || n > (1ull << 40) >> shift ? 0 : n << shift;
}

/* "NAME" or "NAME,ring-size=64M". */
static int parse_spec(struct tapwire *driver, const char *spec)
{
	static const char option[] = "ring-size=";
	const size_t len = strcspn(spec, ",");
	if (!good_name(spec, len))
		return -EINVAL;
	driver->ring_bytes = TW_RING_DEFAULT_BYTES;
	if (spec[len]) {
		if (strncmp(spec + len + 1, option, sizeof(option) - 1) != 0)
			return -EINVAL;
		driver->ring_bytes = parse_size(spec + len + sizeof(option));
		if (!driver->ring_bytes)
			return -EINVAL;
	}
	memcpy(driver->name, spec, len);
	driver->name[len] = '\0';
	return 0;
}

/* --- the ring --- */

static void set_timer(struct tap *tap, int ms)
{
	const struct timeval interval = {ms < 0 ? -1 : ms / 1000, ms < 0 ? 0 : ms % 1000 * 1000};
	if (tap->timer <= 0 || tap->timer_ms == ms)
		return;
	tap->timer_ms = ms;
	(void)tapdisk_server_event_set_timeout(tap->timer, interval);
}

static void attach(struct tap *tap)
{
	const int ret = tw_ring_create(tap->path, tap->disk_bytes, tap->ring_bytes, &tap->ring);
	if (ret) {
		tap->ring = NULL;
		if (ret != tap->error)
			tlog_syslog(TLOG_WARN, "tapwire: %s: writes are not captured: %s\n",
				tap->path, strerror(-ret));
		tap->error = ret;
		set_timer(tap, ret == -ENOENT || ret == -EBUSY ? RETRY_SOON_MS : RETRY_LATER_MS);
		return;
	}
	tap->error = 0;
	tap->n.attached++;
	flights_note(&tap->flights, tap->ring);
	/* What passed meanwhile may be anywhere: the consumer has to look at the whole disk. */
	if (tap->n.uncaught)
		(void)tw_ring_miss(tap->ring, 0, tap->disk_bytes / TW_SECTOR_SIZE);
	set_timer(tap, tw_ring_poll(tap->ring) ? GAP_POLL_MS : NEVER_MS);
	tlog_syslog(TLOG_INFO, "tapwire: %s: writes are captured\n", tap->path);
}

static void on_timer(event_id_t id, char mode, void *arg)
{
	struct tap *tap = arg;
	(void)id;
	(void)mode;
	if (!tap->ring)
		attach(tap);
	else if (!tw_ring_poll(tap->ring))
		set_timer(tap, NEVER_MS);
}

static void publish(struct tap *tap, const td_request_t *treq, bool unsure)
{
	int gap;
	if (!tap->ring) {
		tap->n.uncaught++;
		return;
	}
	tap->n.unsure += unsure;
	if (unsure)
		gap = tw_ring_miss(tap->ring, treq->sec, (uint64_t)treq->secs);
	else
		gap = tw_ring_publish(tap->ring, 0, treq->sec, (uint64_t)treq->secs, treq->buf);
	if (gap)
		set_timer(tap, GAP_POLL_MS);
}

/* --- writes --- */

/* One of the last places, for all writes that are to be completed alike. */
static struct write *share(struct tap *tap, const td_request_t *treq)
{
	struct flights *f = &tap->flights;
	for (uint32_t i = 0; i < f->count; i++) {
		struct write *write = &tap->writes[f->list[i].place];
		if (!write->shared || write->cb != treq->cb || write->cb_data != treq->cb_data)
			continue;
		flights_widen(f, tap->ring, f->list[i].place, treq->sec, (uint64_t)treq->secs);
		return write;
	}
	const uint32_t place = flights_begin(f, tap->ring, treq->sec, (uint64_t)treq->secs);
	if (place == FLIGHTS_FULL)
		return NULL;
	tap->writes[place] = (struct write){tap, treq->cb, treq->cb_data, 0, true};
	return &tap->writes[place];
}

static struct write *begin(struct tap *tap, const td_request_t *treq)
{
	struct write *write;
	if (tap->flights.count < FLIGHTS_MAX - SHARED_WRITES) {
		const uint32_t place = flights_begin(
			&tap->flights, tap->ring, treq->sec, (uint64_t)treq->secs);
		write = &tap->writes[place];
		*write = (struct write){tap, treq->cb, treq->cb_data, 0, false};
	} else {
		write = share(tap, treq);
		tap->n.shared += write != NULL;
	}
	if (write)
		write->left += (uint64_t)treq->secs;
	return write;
}

static void end(struct write *write)
{
	struct tap *tap = write->tap;
	flights_end(&tap->flights, tap->ring, (uint32_t)(write - tap->writes));
	write->shared = false;
	if (tap->closed && tap->flights.count == 0)
		free(tap);
}

/* A write, or a part of one, has come back from below. */
static void on_written(td_request_t treq, int res)
{
	struct write *write = treq.cb_data;
	struct tap *tap = write->tap;
	const uint32_t place = (uint32_t)(write - tap->writes);
	const uint64_t secs = treq.secs > 0 ? (uint64_t)treq.secs : 0;
	const bool unsure = write->shared || flights_unsure(&tap->flights, place);
	treq.cb = write->cb;
	treq.cb_data = write->cb_data;
	if (secs) {
		flights_mark(&tap->flights, place, treq.sec, secs);
		tap->n.writes += res == 0;
		tap->n.failed += res != 0;
		/* Of one that failed nothing is said; but it may lie over one that did not. */
		if (res == 0 || unsure)
			publish(tap, &treq, unsure);
	}
	write->left -= secs < write->left ? secs : write->left;
	if (write->left == 0)
		end(write);
	td_complete_request(treq, res);
}

/* --- the chain --- */

/* tapdisk may put images between a filter and what it is above: a mirror's target. What is forwarded
 * from the image before ours reaches ours. */
static td_request_t aim(const td_driver_t *below, td_request_t treq)
{
	const struct list_head *head = &treq.vreq->vbd->images;
	td_image_t *at = treq.image;
	for (;;) {
		struct list_head *next = at->next.next;
		if (next == head || next == &treq.image->next)
			return treq; /* it is not there: as tapdisk will have it */
		td_image_t *under = (td_image_t *)((char *)next - offsetof(td_image_t, next));
		if (under->driver == below)
			break;
		at = under;
	}
	treq.image = at;
	return treq;
}

static void forward(const struct tapwire *driver, td_request_t treq)
{
	td_forward_request(driver->tap ? aim(driver->tap->below, treq) : treq);
}

static void tapwire_pass(td_driver_t *handle, td_request_t treq)
{
	forward(handle->data, treq);
}

static void tapwire_write(td_driver_t *handle, td_request_t treq)
{
	struct tapwire *driver = handle->data;
	struct tap *tap = driver->tap;
	if (!tap || treq.secs <= 0) {
		driver->uncaught++;
		forward(driver, treq);
		return;
	}
	struct write *write = begin(tap, &treq);
	if (!write) {
		/* More than a thousand, of many origins: no image driver would take it either. */
		tap->n.refused++;
		td_complete_request(treq, -EBUSY);
		return;
	}
	treq.cb = on_written;
	treq.cb_data = write;
	forward(driver, treq);
}

/* --- opening and closing --- */

static int open_driver(td_driver_t *handle, const char *spec, td_flag_t flags)
{
	struct tapwire *driver = handle->data;
	memset(driver, 0, sizeof(*driver));
	driver->readonly = flags & TD_OPEN_RDONLY;
	if (parse_spec(driver, spec) != 0) {
		memset(driver->name, 0, sizeof(driver->name));
		tlog_syslog(TLOG_WARN,
			"tapwire: '%s' is not NAME[,ring-size=SIZE]: writes are not captured\n", spec);
	}
	return 0;
}

/* blktap before 3.16. */
__attribute__((unused)) static int open_plain(td_driver_t *handle, const char *spec, td_flag_t flags)
{
	return open_driver(handle, spec, flags);
}

/* And since. */
__attribute__((unused)) static int open_encrypted(td_driver_t *handle, const char *spec,
	struct td_vbd_encryption *encryption, td_flag_t flags)
{
	(void)encryption; /* for those that hold data */
	return open_driver(handle, spec, flags);
}

static int tapwire_close(td_driver_t *handle)
{
	struct tapwire *driver = handle->data;
	struct tap *tap = driver->tap;
	driver->tap = NULL;
	if (!tap)
		return 0;
	if (tap->timer > 0)
		tapdisk_server_unregister_event(tap->timer);
	/* tapdisk closes nothing that works; should it, the ring keeps the intents. */
	tw_ring_destroy(tap->ring);
	tap->ring = NULL;
	tap->closed = true;
	if (tap->flights.count == 0)
		free(tap);
	return 0;
}

/* The path of the ring, or why there can be none. */
static int ring_path(const struct tapwire *driver, const td_disk_info_t *info, struct tap *tap)
{
	const char *dir = getenv("TAPWIRE_RING_DIR");
	if (info->sector_size != TW_SECTOR_SIZE || info->size > UINT64_MAX / TW_SECTOR_SIZE)
		return -EINVAL;
	tap->disk_bytes = info->size * TW_SECTOR_SIZE;
	tap->ring_bytes = driver->ring_bytes;
	const int n = snprintf(tap->path, sizeof(tap->path), "%s/%s.ring",
		dir && *dir ? dir : TW_RING_DIR, driver->name);
	return n < 0 || (size_t)n >= sizeof(tap->path) ? -ENAMETOOLONG : 0;
}

/* Only now is it known what is below, and how large it is. */
static int tapwire_validate_parent(td_driver_t *handle, td_driver_t *parent, td_flag_t flags)
{
	struct tapwire *driver = handle->data;
	(void)flags;
	(void)tapwire_close(handle);
	if (driver->readonly || !driver->name[0])
		return 0;
	struct tap *tap = calloc(1, sizeof(*tap));
	const int ret = tap ? ring_path(driver, &parent->info, tap) : -ENOMEM;
	if (ret) {
		tlog_syslog(TLOG_WARN, "tapwire: %s: writes are not captured: %s\n", driver->name,
			strerror(-ret));
		free(tap);
		return 0;
	}
	flights_init(&tap->flights);
	tap->below = parent;
	tap->timer_ms = NEVER_MS;
	/* Without a timer the gap of a quiet guest waits for its next write, and a ring for an open. */
	tap->timer = tapdisk_server_register_event(
		SCHEDULER_POLL_TIMEOUT, -1, (struct timeval){-1, 0}, on_timer, tap);
	driver->tap = tap;
	attach(tap);
	return 0;
}

/* A chain that ends here has no image. */
static int tapwire_get_parent_id(td_driver_t *handle, td_disk_id_t *id)
{
	(void)handle;
	(void)id;
	return -EINVAL;
}

/* --- what it tells --- */

static const char *state(const struct tapwire *driver)
{
	if (driver->readonly)
		return "read only";
	if (!driver->tap)
		return driver->name[0] ? "no memory" : "bad name";
	return driver->tap->ring ? "capturing" : strerror(-driver->tap->error);
}

static void tapwire_stats(td_driver_t *handle, td_stats_t *st)
{
	const struct tapwire *driver = handle->data;
	const struct tap *tap = driver->tap;
	struct tw_ring_stats ring = {0};
	tapdisk_stats_field(st, "state", "s", state(driver));
	tapdisk_stats_field(st, "uncaught", PRIu64, driver->uncaught + (tap ? tap->n.uncaught : 0));
	if (!tap)
		return;
	tapdisk_stats_field(st, "ring", "s", tap->path);
	tapdisk_stats_field(st, "attached", PRIu64, tap->n.attached);
	tapdisk_stats_field(st, "writes", PRIu64, tap->n.writes);
	tapdisk_stats_field(st, "unsure", PRIu64, tap->n.unsure);
	tapdisk_stats_field(st, "failed", PRIu64, tap->n.failed);
	tapdisk_stats_field(st, "shared", PRIu64, tap->n.shared);
	tapdisk_stats_field(st, "refused", PRIu64, tap->n.refused);
	tapdisk_stats_field(st, "in_flight", PRIu32, tap->flights.count);
	if (!tap->ring)
		return;
	tw_ring_stats(tap->ring, &ring);
	tapdisk_stats_field(st, "records", PRIu64, ring.records);
	tapdisk_stats_field(st, "payload_bytes", PRIu64, ring.payload_bytes);
	tapdisk_stats_field(st, "gaps", PRIu64, ring.gaps);
	tapdisk_stats_field(st, "missed", PRIu64, ring.missed);
	tapdisk_stats_field(st, "missed_bytes", PRIu64, ring.missed_bytes);
	tapdisk_stats_field(st, "wakeups", PRIu64, ring.wakeups);
	tapdisk_stats_field(st, "spared_bytes", PRIu64, ring.spared_bytes);
}

static void tapwire_debug(td_driver_t *handle)
{
	const struct tapwire *driver = handle->data;
	const struct tap *tap = driver->tap;
	if (!tap) {
		tlog_syslog(TLOG_WARN, "tapwire: %s: %s, %" PRIu64 " writes uncaught\n",
			driver->name, state(driver), driver->uncaught);
		return;
	}
	tlog_syslog(TLOG_WARN,
		"tapwire: %s: %s, %" PRIu32 " writes in flight, %" PRIu64 " done (%" PRIu64
		" unsure, %" PRIu64 " uncaught), %" PRIu64 " failed, %" PRIu64
		" shared a place, %" PRIu64 " sent back\n",
		tap->path, state(driver), tap->flights.count, tap->n.writes, tap->n.unsure,
		tap->n.uncaught, tap->n.failed, tap->n.shared, tap->n.refused);
}

/* All that this driver exports. */
__attribute__((visibility("default"))) struct tap_disk tapdisk_tapwire = {
	.disk_type = "tapdisk_tapwire",
	.private_data_size = sizeof(struct tapwire),
	.td_open = _Generic(((struct tap_disk *)NULL)->td_open,
		int (*)(td_driver_t *, const char *, td_flag_t): open_plain,
		default: open_encrypted),
	.td_close = tapwire_close,
	.td_get_parent_id = tapwire_get_parent_id,
	.td_validate_parent = tapwire_validate_parent,
	.td_queue_read = tapwire_pass,
#ifdef TD_BLOCK_STATE_NONE
	.td_queue_block_status = tapwire_pass,
#endif
	.td_queue_write = tapwire_write,
	.td_debug = tapwire_debug,
	.td_stats = tapwire_stats,
};
