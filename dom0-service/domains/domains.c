/* SPDX-License-Identifier: BSD-3-Clause */
#include "domains/domains.h"
#include "base/log.h"
#include "base/scope.h"
#include "domains/dirty.h"
#include "domains/job.h"
#include "domains/known.h"
#include "domains/worker.h"

#include <stdlib.h>
#include <string.h>

/* After a first look events are looked at so often at most: in a storm, many in one go. */
#define EVENTS_MS 10
/* Numbers that have changed are written so often. */
#define NUMBERS_MS 5000
#define RETRY_MIN_MS 100
#define RETRY_MAX_MS 30000
/* How long xenstored may take to let go of what was said. */
#define FAREWELL_MS 3000
/* xenstored has not answered for so long: `tapwire status` says so. */
#define SLOW_MS 2000

struct tw_domains {
	uv_loop_t *loop;
	const struct tw_domains_ops *ops;
	void *arg;
	struct tw_worker *worker;
	struct tw_job *job;
	struct tw_dirty *dirty;
	struct tw_told *told;
	struct tw_known *known;
	uv_poll_t poll; /* these two as long as there is a connection */
	uv_poll_t sentinel;
	bool has_sentinel;
	uv_timer_t plan;
	uv_timer_t events;
	bool polling;
	bool connected;
	bool again;    /* not the first connection */
	bool complete; /* all that it knew at first has been told of */
	bool lost;     /* that there is none has been told */
	bool want_list, want_homes;
	bool urgent;       /* what waits to be written is not only numbers */
	uint64_t write_at; /* when it is due, 0: nothing is */
	uint64_t retry_at, retry_ms;
	uint64_t events_at; /* the last look at events */
	uint64_t seen, own; /* events; of them, those of our own writes */
	unsigned reconnects;
	unsigned open; /* handles */
	bool taking;   /* what came of the job is being handed on: it cannot be filled anew */
	bool started, stopping, stopped, closing;
	uint64_t stop_at;
	void (*on_stopped)(void *arg);
	void *stopped_arg;
};

static void plan(struct tw_domains *d);

static uint64_t now_ms(const struct tw_domains *d)
{
	return uv_now(d->loop);
}

static void complain(struct tw_error *err)
{
	if (err)
		tw_log(TW_LOG_ERROR, "", "%s", tw_error_message(err));
	tw_error_destroy(err);
}

/* --- what is known --- */

static void mark(struct tw_domains *d, unsigned domid)
{
	complain(tw_dirty_mark(d->dirty, domid, now_ms(d)));
}

/* --- events --- */

static void mark_unnamed(struct tw_domains *d)
{
	struct tw_known *known, *next;
	HASH_ITER (hh, d->known, known, next)
		if (!known->named)
			mark(d, known->domid);
}

static void mark_uuid(struct tw_domains *d, const char *uuid)
{
	struct tw_known *known, *next;
	HASH_ITER (hh, d->known, known, next)
		if (known->named && strcmp(known->uuid, uuid) == 0)
			mark(d, known->domid);
}

static void take_event(struct tw_domains *d, const char *path)
{
	struct tw_xs_ids ids = { .self = d->job->self };
	d->seen++;
	if (tw_xs_below(TW_XS_DISK_OURS, path, &ids))
		d->own++;
	else if (tw_xs_below(TW_XS_GUEST_DISKS, path, &ids))
		mark(d, ids.domid);
	else if (tw_xs_below(TW_XS_BACKENDS, path, &ids))
		d->want_list = true;
	else if (tw_xs_below(TW_XS_VM_NAME, path, &ids))
		mark_uuid(d, ids.uuid);
	else if (tw_xs_below(TW_XS_INTRODUCE, path, &ids))
		mark_unnamed(d);
	else if (tw_xs_below(TW_XS_RELEASE, path, &ids))
		d->want_homes = true;
}

static void stop_polling(struct tw_domains *d)
{
	if (d->polling)
		uv_poll_stop(&d->poll);
	d->polling = false;
}

static void on_readable(uv_poll_t *poll, int status, int events);

static void start_polling(struct tw_domains *d)
{
	if (d->connected && !d->polling)
		uv_poll_start(&d->poll, UV_READABLE, on_readable);
	d->polling = d->connected;
}

static void lose(struct tw_domains *d, struct tw_error *err);

/* Takes all that has come: libxenstore keeps what is not taken in memory without a bound. */
static void look_at_events(struct tw_domains *d)
{
	d->events_at = now_ms(d);
	for (;;) {
		char *path;
		struct tw_error *err = tw_store_event(d->job->store, &path);
		if (err) {
			lose(d, err);
			return;
		}
		if (!path)
			return;
		take_event(d, path);
		free(path);
	}
}

static void on_events_timer(uv_timer_t *timer)
{
	struct tw_domains *d = timer->data;
	if (!d->connected)
		return;
	start_polling(d);
	look_at_events(d);
	plan(d);
}

static void on_readable(uv_poll_t *poll, int status, int events)
{
	struct tw_domains *d = poll->data;
	uint64_t since = now_ms(d) - d->events_at;
	(void)status;
	(void)events;
	if (since < EVENTS_MS) {
		stop_polling(d);
		uv_timer_start(&d->events, on_events_timer, EVENTS_MS - since, 0);
		return;
	}
	look_at_events(d);
	plan(d);
}

/* --- the connection --- */

static void on_handle_closed(uv_handle_t *handle)
{
	struct tw_domains *d = handle->data;
	if (--d->open == 0 && d->closing)
		free(d);
}

static void disconnect(struct tw_domains *d)
{
	if (!d->connected)
		return;
	stop_polling(d);
	uv_timer_stop(&d->events);
	d->connected = false;
	uv_close((uv_handle_t *)&d->poll, on_handle_closed);
	if (d->has_sentinel)
		uv_close((uv_handle_t *)&d->sentinel, on_handle_closed);
}

static void retry_later(struct tw_domains *d)
{
	d->retry_ms = d->retry_ms ? d->retry_ms * 2 : RETRY_MIN_MS;
	if (d->retry_ms > RETRY_MAX_MS)
		d->retry_ms = RETRY_MAX_MS;
	d->retry_at = now_ms(d) + d->retry_ms;
}

/* A worker in the middle of a job will find the connection dead, too. */
static void lose(struct tw_domains *d, struct tw_error *err)
{
	disconnect(d);
	if (!tw_worker_busy(d->worker))
		tw_store_close(TW_STEAL(d->job->store));
	retry_later(d);
	if (!d->stopping && !d->lost)
		d->ops->lost(d->arg, tw_error_message(err));
	d->lost = true;
	tw_error_destroy(err);
}

/* The handles of the last connection have to be closed before their memory is used again. */
static bool may_connect(const struct tw_domains *d)
{
	return !d->connected && d->open == 2;
}

static void on_gone(uv_poll_t *sentinel, int status, int events)
{
	struct tw_domains *d = sentinel->data;
	(void)status;
	(void)events;
	lose(d, tw_error_create(TW_UNAVAILABLE, "xenstore: xenstored has gone"));
	plan(d);
}

static void open_polls(struct tw_domains *d)
{
	int fd = tw_store_sentinel(d->job->store);
	uv_poll_init(d->loop, &d->poll, tw_store_fd(d->job->store));
	d->poll.data = d;
	d->open++;
	start_polling(d);
	d->has_sentinel = fd >= 0;
	if (!d->has_sentinel)
		return;
	uv_poll_init(d->loop, &d->sentinel, fd);
	d->sentinel.data = d;
	d->open++;
	uv_poll_start(&d->sentinel, UV_READABLE | UV_DISCONNECT, on_gone);
}

static void connected(struct tw_domains *d)
{
	d->connected = true;
	d->retry_ms = 0;
	open_polls(d);
	d->want_list = true;
	d->complete = d->lost = false;
	tw_known_all_fresh(d->known);
	tw_dirty_clear(d->dirty);
	tw_told_again(d->told);
	if (tw_told_waits(d->told)) {
		d->urgent = true;
		d->write_at = now_ms(d);
	}
	if (d->again)
		d->reconnects++;
	tw_log(TW_LOG_INFO, "", "xenstore: connected as domain %u", d->job->self);
}

/* --- what came of a job --- */

static void take_guest(struct tw_domains *d, unsigned domid, const struct tw_guest *guest)
{
	struct tw_known *known = guest ? tw_known_get(&d->known, domid) : tw_known_find(d->known, domid);
	bool again = known && known->fresh && d->again;
	if (guest && known) {
		known->named = guest->named;
		memcpy(known->uuid, guest->uuid, sizeof(known->uuid));
		known->fresh = false;
	} else if (known) {
		tw_known_drop(&d->known, known);
	}
	if (!guest)
		tw_dirty_forget(d->dirty, domid);
	d->ops->guest(d->arg, domid, guest, again);
}

static void take_guests(struct tw_domains *d)
{
	struct tw_job *job = d->job;
	for (size_t i = 0; i < job->nguests; i++) {
		struct tw_known *known = tw_known_find(d->known, job->domids[i]);
		if (job->read[i])
			take_guest(d, job->domids[i], job->guests[i]);
		else if (known)
			known->fresh = false; /* nobody waits for it */
	}
}

static bool is_in(const unsigned *list, size_t n, unsigned domid)
{
	for (size_t i = 0; i < n; i++)
		if (list[i] == domid)
			return true;
	return false;
}

/* Guests that come or went without an event of their own. */
static void take_list(struct tw_domains *d)
{
	const struct tw_job *job = d->job;
	struct tw_known *known, *next;
	HASH_ITER (hh, d->known, known, next)
		if (known->fresh || !is_in(job->listed, job->nlisted, known->domid))
			mark(d, known->domid);
	for (size_t i = 0; i < job->nlisted; i++) {
		if (tw_known_find(d->known, job->listed[i]))
			continue;
		known = tw_known_get(&d->known, job->listed[i]);
		if (known)
			known->fresh = true;
		mark(d, job->listed[i]);
	}
}

static void take_homes(struct tw_domains *d)
{
	const struct tw_job *job = d->job;
	struct tw_known *known, *next;
	if (!job->domains)
		return;
	HASH_ITER (hh, d->known, known, next)
		if (!is_in(job->domains, job->ndomains, known->domid))
			mark(d, known->domid);
}

static void take_results(struct tw_domains *d)
{
	take_guests(d);
	if (d->job->list)
		take_list(d);
	if (d->job->homes)
		take_homes(d);
	if (d->complete || tw_known_any_fresh(d->known))
		return;
	d->complete = true;
	d->again = true;
	d->ops->complete(d->arg);
}

static void on_done(void *arg)
{
	struct tw_domains *d = arg;
	struct tw_job *job = d->job;
	d->taking = true;
	if (job->err) {
		lose(d, TW_STEAL(job->err));
	} else if (job->opened) {
		connected(d);
	} else if (!d->connected) { /* it broke meanwhile */
		tw_store_close(TW_STEAL(job->store));
	} else if (!d->stopping) {
		take_results(d);
	}
	tw_job_reset(job);
	d->taking = false;
	plan(d);
}

static void on_work(void *arg)
{
	struct tw_domains *d = arg;
	tw_job_run(d->job);
}

/* --- planning --- */

static void on_plan(uv_timer_t *timer)
{
	plan(timer->data);
}

static void finish_stop(struct tw_domains *d)
{
	if (d->stopped)
		return;
	d->stopped = true;
	uv_timer_stop(&d->plan);
	disconnect(d);
	d->on_stopped(d->stopped_arg);
}

/* Fills the job with what is due now. */
static bool fill_job(struct tw_domains *d)
{
	struct tw_job *job = d->job;
	uint64_t now = now_ms(d);
	if (!d->connected)
		return !d->stopping && may_connect(d) && now >= d->retry_at;
	if (d->write_at && now >= d->write_at) {
		complain(tw_told_take(d->told, TW_JOB_WRITES, &job->batch));
		d->write_at = tw_told_waits(d->told) ? now : 0;
		d->urgent = d->write_at != 0;
	}
	if (d->stopping)
		return job->batch != NULL;
	job->list = d->want_list;
	job->homes = d->want_homes;
	d->want_list = d->want_homes = false;
	job->nguests = tw_dirty_take(d->dirty, now, job->domids, TW_JOB_GUESTS);
	return job->batch || job->list || job->homes || job->nguests;
}

/* Milliseconds until something is due; -1: nothing is. */
static int64_t next_due(const struct tw_domains *d)
{
	uint64_t now = now_ms(d);
	if (d->stopping)
		return d->stop_at > now ? (int64_t)(d->stop_at - now) : 0;
	if (!d->connected)
		return d->retry_at > now ? (int64_t)(d->retry_at - now) : 1;
	int64_t due = tw_dirty_due(d->dirty, now);
	int64_t write = !d->write_at ? -1 : d->write_at > now ? (int64_t)(d->write_at - now) : 0;
	return due < 0 || (write >= 0 && write < due) ? write : due;
}

static void plan(struct tw_domains *d)
{
	if (!d->started || d->stopped || d->taking)
		return;
	bool busy = tw_worker_busy(d->worker);
	if (!busy && fill_job(d)) {
		tw_worker_run(d->worker);
		busy = true;
	}
	if (d->stopping && (!busy || now_ms(d) >= d->stop_at)) {
		finish_stop(d);
		return;
	}
	/* The end of a job plans anew. */
	int64_t due = busy && !d->stopping ? -1 : next_due(d);
	if (due >= 0)
		uv_timer_start(&d->plan, on_plan, (uint64_t)due, 0);
	else
		uv_timer_stop(&d->plan);
}

/* --- telling --- */

static void write_soon(struct tw_domains *d, bool urgent)
{
	uint64_t at = now_ms(d) + (urgent ? 0 : NUMBERS_MS);
	if (!d->connected || (d->write_at && d->write_at <= at))
		return;
	d->write_at = at;
	plan(d);
}

void tw_domains_tell_disk(struct tw_domains *d, const struct tw_told_disk *disk)
{
	bool urgent = false;
	complain(tw_told_disk(d->told, disk, &urgent));
	if (tw_told_waits(d->told))
		write_soon(d, urgent);
}

void tw_domains_tell_service(struct tw_domains *d, const struct tw_told_service *service)
{
	if (tw_told_service(d->told, service))
		write_soon(d, true);
}

void tw_domains_forget_disk(struct tw_domains *d, const struct tw_xs_ids *ids)
{
	tw_told_forget(d->told, ids);
}

/* --- the whole --- */

static struct tw_error *create_parts(struct tw_domains *d)
{
	d->job = calloc(1, sizeof(*d->job));
	if (!d->job)
		return tw_error_nomem();
	TW_TRY(tw_dirty_create(&d->dirty));
	TW_TRY(tw_told_create(&d->told));
	return tw_worker_create(d->loop, on_work, on_done, d, &d->worker);
}

struct tw_error *tw_domains_create(
	uv_loop_t *loop, const struct tw_domains_ops *ops, void *arg, struct tw_domains **out)
{
	struct tw_domains *d = calloc(1, sizeof(*d));
	if (!d)
		return tw_error_nomem();
	d->loop = loop;
	d->ops = ops;
	d->arg = arg;
	uv_timer_init(loop, &d->plan);
	uv_timer_init(loop, &d->events);
	d->plan.data = d->events.data = d;
	d->open = 2;
	struct tw_error *err = create_parts(d);
	if (err)
		tw_domains_destroy(d);
	else
		*out = d;
	return err;
}

void tw_domains_start(struct tw_domains *d)
{
	d->started = true;
	uv_update_time(d->loop);
	plan(d);
}

void tw_domains_stop(struct tw_domains *d, void (*stopped)(void *arg), void *arg)
{
	d->stopping = true;
	d->on_stopped = stopped;
	d->stopped_arg = arg;
	d->stop_at = now_ms(d) + FAREWELL_MS;
	tw_told_retract(d->told);
	d->write_at = tw_told_waits(d->told) ? now_ms(d) : 0;
	if (!d->started)
		finish_stop(d);
	else
		plan(d);
}

void tw_domains_destroy(struct tw_domains *d)
{
	if (!d)
		return;
	d->started = false;
	disconnect(d);
	if (tw_worker_destroy(d->worker) && d->job) {
		tw_job_reset(d->job);
		tw_store_close(d->job->store);
		free(d->job);
	}
	tw_dirty_destroy(d->dirty);
	tw_told_destroy(d->told);
	tw_known_drop_all(&d->known);
	d->closing = true;
	uv_close((uv_handle_t *)&d->plan, on_handle_closed);
	uv_close((uv_handle_t *)&d->events, on_handle_closed);
}

void tw_domains_status(const struct tw_domains *d, const char *key, struct tw_json *json)
{
	const struct tw_dirty_stats *stats = tw_dirty_stats(d->dirty);
	uint64_t busy = tw_worker_busy_ms(d->worker);
	tw_json_open(json, key);
	tw_json_text(json, "state",
		busy > SLOW_MS          ? "does not answer"
		: !d->connected         ? "not there"
		: d->complete ? "connected"
					: "reading");
	if (d->connected)
		tw_json_u64(json, "domid", d->job->self);
	tw_json_u64(json, "guests", HASH_COUNT(d->known));
	tw_json_u64(json, "reconnects", d->reconnects);
	tw_json_u64(json, "events", d->seen);
	tw_json_u64(json, "own_events", d->own);
	tw_json_u64(json, "looks", stats->looks);
	tw_json_u64(json, "held_back", stats->held);
	tw_json_close(json);
}
