/* SPDX-License-Identifier: BSD-3-Clause */
#include "supervise/fleet.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/scope.h"

#include <stdlib.h>
#include <string.h>
#include <utlist.h>

/* A start takes a moment of processor time: more of them at once than processors (and a few for those that wait
 * for their disks) would only get into each other's way. One that crawls for longer gives its place to the next. */
#define SLOW_START_MS 1000
#define MIN_SLOTS 4

enum phase { KEPT, RUNNING, STOP_SERVING, SERVING_STOPPED, STOP_INSPECTING, OVER };

struct entry {
	struct tw_fleet *fleet;
	char *state_dir;
	struct tw_watch *watch;
	struct tw_disk_spec *next; /* start by this one when the watch is over; NULL: go */
	enum phase phase;
	bool for_good;
	bool queued, starting; /* for a slot; in one */
	uint64_t start_ms;     /* the loop's clock */
	struct entry *prev_queued, *next_queued;
	UT_hash_handle hh;
};

struct tw_fleet {
	uv_loop_t *loop;
	const struct tw_fleet_ops *ops;
	void *arg;
	struct tw_appear *appear;
	struct entry *entries;
	struct entry *queue; /* for a slot */
	unsigned slots, busy;
	uv_timer_t *turn; /* at once: what is OVER is cleared away; later: slow starts give up their slots */
	bool started;
	bool stopping;
	bool told; /* stopped() */
};

/* --- turns: what must not happen in the middle of a watch's callback --- */

static void on_turn(uv_timer_t *timer);

static void plan_turn(struct tw_fleet *fleet, uint64_t ms)
{
	if (ms == 0 || !uv_is_active((uv_handle_t *)fleet->turn))
		uv_timer_start(fleet->turn, on_turn, ms, 0);
}

/* --- slots --- */

static void leave_slot(struct entry *entry)
{
	struct tw_fleet *fleet = entry->fleet;
	if (entry->queued)
		DL_DELETE2(fleet->queue, entry, prev_queued, next_queued);
	if (entry->starting)
		fleet->busy--;
	if (entry->starting && fleet->queue)
		plan_turn(fleet, 0);
	entry->queued = entry->starting = false;
}

static void fill_slots(struct tw_fleet *fleet)
{
	while (fleet->queue && fleet->busy < fleet->slots) {
		struct entry *entry = fleet->queue;
		DL_DELETE2(fleet->queue, entry, prev_queued, next_queued);
		entry->queued = false;
		entry->starting = true;
		entry->start_ms = uv_now(fleet->loop);
		fleet->busy++;
		tw_watch_go(entry->watch);
	}
	if (fleet->queue)
		plan_turn(fleet, SLOW_START_MS / 4);
}

static void hurry_slow_ones(struct tw_fleet *fleet)
{
	struct entry *entry, *next;
	if (!fleet->queue)
		return;
	HASH_ITER (hh, fleet->entries, entry, next)
		if (entry->starting && uv_now(fleet->loop) - entry->start_ms >= SLOW_START_MS)
			leave_slot(entry);
}

/* --- what a watch tells --- */

static void watch_live(void *arg)
{
	const struct entry *entry = arg;
	entry->fleet->ops->live(entry->fleet->arg);
}

static bool watch_failed(void *arg, int status)
{
	const struct entry *entry = arg;
	return entry->fleet->ops->failed(entry->fleet->arg, status);
}

static void watch_may_start(void *arg)
{
	struct entry *entry = arg;
	if (entry->queued || entry->starting)
		return;
	entry->queued = true;
	DL_APPEND2(entry->fleet->queue, entry, prev_queued, next_queued);
	plan_turn(entry->fleet, 0);
}

static void watch_started(void *arg)
{
	leave_slot(arg);
}

static void watch_changed(void *arg)
{
	const struct entry *entry = arg;
	const struct tw_fleet *fleet = entry->fleet;
	if (fleet->ops->changed && entry->watch)
		fleet->ops->changed(fleet->arg, tw_watch_spec(entry->watch), tw_watch_report(entry->watch));
}

static void watch_stopped(void *arg)
{
	struct entry *entry = arg;
	if (entry->phase == STOP_SERVING)
		entry->phase = SERVING_STOPPED;
	else if (entry->phase == STOP_INSPECTING)
		entry->phase = OVER;
	plan_turn(entry->fleet, 0);
}

static const struct tw_watch_ops watch_ops = {
	.live = watch_live,
	.failed = watch_failed,
	.stopped = watch_stopped,
	.may_start = watch_may_start,
	.started = watch_started,
	.changed = watch_changed,
};

/* --- entries --- */

static struct entry *find(const struct tw_fleet *fleet, const char *state_dir)
{
	struct entry *entry;
	HASH_FIND_STR(fleet->entries, state_dir, entry);
	return entry;
}

static void free_entry(struct entry *entry)
{
	HASH_DEL(entry->fleet->entries, entry);
	leave_slot(entry);
	tw_watch_destroy(entry->watch);
	tw_disk_spec_free(entry->next);
	free(entry->state_dir);
	free(entry);
}

/* A watch by the spec that waits; it starts when the fleet does. */
static struct tw_error *begin(struct entry *entry)
{
	struct tw_fleet *fleet = entry->fleet;
	struct tw_disk_spec *spec = TW_STEAL(entry->next);
	struct tw_error *err =
		tw_watch_create(fleet->loop, fleet->appear, spec, &watch_ops, entry, &entry->watch);
	tw_disk_spec_free(spec);
	TW_TRY(err);
	entry->for_good = false;
	if (!fleet->started)
		return NULL;
	entry->phase = RUNNING;
	tw_watch_start(entry->watch);
	return NULL;
}

/* The next step of an end; the last entries are let go together. */
static void stop_serving(struct entry *entry)
{
	if (entry->phase != RUNNING)
		return;
	entry->phase = STOP_SERVING;
	if (entry->queued)
		leave_slot(entry);
	tw_watch_stop_serving(entry->watch);
}

static bool serving_somewhere(const struct tw_fleet *fleet)
{
	struct entry *entry, *next;
	HASH_ITER (hh, fleet->entries, entry, next)
		if (entry->phase == RUNNING || entry->phase == STOP_SERVING)
			return true;
	return false;
}

static void clear_away(struct entry *entry)
{
	struct tw_fleet *fleet = entry->fleet;
	leave_slot(entry);
	tw_watch_destroy(TW_STEAL(entry->watch));
	entry->phase = KEPT;
	struct tw_error *err = entry->next && !fleet->stopping ? begin(entry) : NULL;
	if (err)
		tw_log(TW_LOG_ERROR, entry->state_dir, "%s", tw_error_message(err));
	tw_error_destroy(err);
	if (entry->watch) {
		watch_changed(entry); /* nothing that was said of the last one holds */
		return;
	}
	TW_AUTO_FREE char *state_dir = strdup(entry->state_dir);
	free_entry(entry);
	if (fleet->ops->gone && state_dir && !fleet->stopping)
		fleet->ops->gone(fleet->arg, state_dir);
}

static void on_turn(uv_timer_t *timer)
{
	struct tw_fleet *fleet = timer->data;
	struct entry *entry, *next;
	bool wait = fleet->stopping && serving_somewhere(fleet);
	HASH_ITER (hh, fleet->entries, entry, next) {
		if (entry->phase == SERVING_STOPPED && !wait) {
			entry->phase = STOP_INSPECTING;
			tw_watch_stop_inspecting(entry->watch, entry->for_good);
		}
		if (entry->phase == OVER)
			clear_away(entry);
	}
	hurry_slow_ones(fleet);
	if (!fleet->stopping)
		fill_slots(fleet);
	if (!fleet->stopping || fleet->entries || fleet->told)
		return;
	fleet->told = true;
	fleet->ops->stopped(fleet->arg);
}

/* --- the whole --- */

struct tw_error *tw_fleet_create(
	uv_loop_t *loop, const struct tw_fleet_ops *ops, void *arg, struct tw_fleet **out)
{
	struct tw_fleet *fleet = calloc(1, sizeof(*fleet));
	if (!fleet)
		return tw_error_nomem();
	fleet->loop = loop;
	fleet->ops = ops;
	fleet->arg = arg;
	fleet->slots = 2 * uv_available_parallelism();
	if (fleet->slots < MIN_SLOTS)
		fleet->slots = MIN_SLOTS;
	fleet->turn = malloc(sizeof(*fleet->turn));
	struct tw_error *err = fleet->turn ? tw_appear_create(loop, &fleet->appear) : tw_error_nomem();
	if (err) {
		free(fleet->turn);
		free(fleet);
		return err;
	}
	uv_timer_init(loop, fleet->turn);
	fleet->turn->data = fleet;
	*out = fleet;
	return NULL;
}

static void free_timer(uv_handle_t *handle)
{
	free(handle);
}

void tw_fleet_destroy(struct tw_fleet *fleet)
{
	struct entry *entry, *next;
	if (!fleet)
		return;
	HASH_ITER (hh, fleet->entries, entry, next)
		free_entry(entry);
	tw_appear_destroy(fleet->appear);
	uv_close((uv_handle_t *)fleet->turn, free_timer);
	free(fleet);
}

void tw_fleet_start(struct tw_fleet *fleet)
{
	struct entry *entry, *next;
	fleet->started = true;
	HASH_ITER (hh, fleet->entries, entry, next) {
		entry->phase = RUNNING;
		tw_watch_start(entry->watch);
	}
}

static struct tw_error *add(struct tw_fleet *fleet, struct tw_disk_spec *spec)
{
	struct entry *entry = calloc(1, sizeof(*entry));
	if (entry)
		entry->state_dir = strdup(spec->state_dir);
	if (!entry || !entry->state_dir) {
		free(entry);
		tw_disk_spec_free(spec);
		return tw_error_nomem();
	}
	entry->fleet = fleet;
	entry->next = spec;
	HASH_ADD_KEYPTR(hh, fleet->entries, entry->state_dir, strlen(entry->state_dir), entry);
	struct tw_error *err = begin(entry);
	if (err)
		free_entry(entry);
	return err;
}

struct tw_error *tw_fleet_put(struct tw_fleet *fleet, const struct tw_disk_spec *spec)
{
	if (fleet->stopping)
		return NULL;
	struct entry *entry = find(fleet, spec->state_dir);
	const struct tw_disk_spec *now = entry ? tw_fleet_find(fleet, spec->state_dir) : NULL;
	if (now && tw_disk_spec_equal(now, spec))
		return NULL;
	struct tw_disk_spec *copy = tw_disk_spec_copy(spec);
	if (!copy)
		return tw_error_nomem();
	if (!entry)
		return add(fleet, copy);
	tw_disk_spec_free(entry->next);
	entry->next = copy;
	if (entry->phase == KEPT)
		clear_away(entry);
	else
		stop_serving(entry);
	return NULL;
}

void tw_fleet_drop(struct tw_fleet *fleet, const char *state_dir, bool for_good)
{
	struct entry *entry = find(fleet, state_dir);
	if (!entry)
		return;
	tw_disk_spec_free(TW_STEAL(entry->next));
	entry->for_good = for_good;
	if (entry->phase == KEPT)
		free_entry(entry);
	else
		stop_serving(entry);
}

void tw_fleet_retry(struct tw_fleet *fleet)
{
	struct entry *entry, *next;
	HASH_ITER (hh, fleet->entries, entry, next)
		if (entry->watch)
			tw_watch_retry(entry->watch);
}

void tw_fleet_stop(struct tw_fleet *fleet)
{
	struct entry *entry, *next;
	fleet->stopping = true;
	HASH_ITER (hh, fleet->entries, entry, next) {
		if (entry->phase == KEPT)
			free_entry(entry);
		else
			stop_serving(entry);
	}
	plan_turn(fleet, 0);
}

void tw_fleet_kill(struct tw_fleet *fleet)
{
	struct entry *entry, *next;
	HASH_ITER (hh, fleet->entries, entry, next)
		if (entry->watch)
			tw_watch_kill(entry->watch);
}

/* --- questions --- */

size_t tw_fleet_size(const struct tw_fleet *fleet)
{
	return HASH_COUNT(fleet->entries);
}

/* What an entry is, or will be; NULL: it ends. */
static const struct tw_disk_spec *spec_of(const struct entry *entry)
{
	if (entry->next)
		return entry->next;
	return entry->phase <= RUNNING && entry->watch ? tw_watch_spec(entry->watch) : NULL;
}

const struct tw_disk_spec *tw_fleet_find(const struct tw_fleet *fleet, const char *state_dir)
{
	const struct entry *entry = find(fleet, state_dir);
	return entry ? spec_of(entry) : NULL;
}

bool tw_fleet_is_mirrored(const struct tw_fleet *fleet, const char *state_dir)
{
	const struct entry *entry = find(fleet, state_dir);
	return entry && entry->watch && tw_watch_spec(entry->watch)->tapdisk;
}

bool tw_fleet_is_ending(const struct tw_fleet *fleet, const char *state_dir)
{
	const struct entry *entry = find(fleet, state_dir);
	return entry && !spec_of(entry);
}

void tw_fleet_each(const struct tw_fleet *fleet,
	void (*each)(void *arg, const struct tw_disk_spec *spec, const struct tw_report *report), void *arg)
{
	static const struct tw_report none = { .state = TW_REPORT_WAITING };
	struct entry *entry, *next;
	HASH_ITER (hh, fleet->entries, entry, next) {
		const struct tw_disk_spec *spec = spec_of(entry);
		if (spec)
			each(arg, spec, entry->watch ? tw_watch_report(entry->watch) : &none);
	}
}

void tw_fleet_count(const struct tw_fleet *fleet, size_t *live, size_t *failed)
{
	struct entry *entry, *next;
	*live = *failed = 0;
	HASH_ITER (hh, fleet->entries, entry, next) {
		enum tw_report_state state =
			entry->watch ? tw_watch_report(entry->watch)->state : TW_REPORT_WAITING;
		*live += state == TW_REPORT_LIVE || state == TW_REPORT_RESYNC;
		*failed += state == TW_REPORT_FAILED;
	}
}

void tw_fleet_status(const struct tw_fleet *fleet, struct tw_json *json)
{
	struct entry *entry, *next;
	HASH_ITER (hh, fleet->entries, entry, next)
		if (entry->watch)
			tw_watch_status(entry->watch, json);
}
