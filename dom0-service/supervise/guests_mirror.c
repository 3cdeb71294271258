/* SPDX-License-Identifier: BSD-3-Clause */
/* Which tapdisk a mirror is put under, for guests' disks that the configuration selects. */
#include "base/log.h"
#include "base/scope.h"
#include "ring.h"
#include "supervise/guests_inside.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* Between two looks for a tapdisk that was not found. */
#define PAUSE_FIRST_MS 1000
#define PAUSE_MAX_MS 60000

bool tw_guest_wants_mirror(const struct tw_guests *guests, const struct tw_guest_entry *entry)
{
	const struct tw_instance *current = tw_guest_current(entry);
	const struct tw_config_guest *rule =
		tw_config_match(guests->config, current->name, entry->uuid, entry->vdev);
	if (entry->detached || current->read_only || current->cdrom || (rule && !rule->watch))
		return false;
	if (strcmp(current->script, "block-tapwire") == 0)
		return current->by_tapdisk;
	return rule && rule->attach && strcmp(current->ids.kind, "vbd3") == 0;
}

void tw_guest_tap_deinit(struct tw_guest_tap *tap)
{
	free(tap->asked);
	free(tap->target);
	free(tap->image);
	free(tap->trouble);
	*tap = (struct tw_guest_tap){ 0 };
}

/* Somebody else fills the ring: a tapdisk with the driver, say. That is as good, or better. */
static bool captured_otherwise(const struct tw_guests *guests, const struct tw_guest_entry *entry)
{
	return !tw_fleet_is_mirrored(guests->fleet, entry->state_dir) && tw_ring_has_producer(entry->ring);
}

/* Then the disk is followed as any other, for which its image has to be known. */
static bool goes_without(const struct tw_guests *guests, const struct tw_guest_entry *entry)
{
	return tw_guest_current(entry)->image && captured_otherwise(guests, entry);
}

/* --- when --- */

static void on_search(uv_timer_t *timer)
{
	struct tw_guests *guests = timer->data;
	if (tw_taps_runs(guests->taps) || guests->stopping)
		return; /* its end plans anew */
	guests->listed_from = uv_now(guests->loop);
	tw_taps_ask(guests->taps, guests->config->tap_ctl);
}

static void plan_search(struct tw_guests *guests)
{
	struct tw_guest_entry *entry, *next;
	uint64_t at = UINT64_MAX, now = uv_now(guests->loop);
	HASH_ITER (hh, guests->entries, entry, next)
		if (entry->tap.waits && entry->tap.next_at < at)
			at = entry->tap.next_at;
	if (at != UINT64_MAX && !guests->stopping)
		uv_timer_start(guests->search, on_search, at > now ? at - now : 0, 0);
}

static void search_in(struct tw_guests *guests, struct tw_guest_entry *entry, uint64_t ms)
{
	uint64_t due = uv_timer_get_due_in(guests->search);
	entry->tap.waits = true;
	entry->tap.next_at = uv_now(guests->loop) + ms;
	if (!uv_is_active((uv_handle_t *)guests->search) || due > ms)
		uv_timer_start(guests->search, on_search, ms, 0);
}

static void search_later(struct tw_guests *guests, struct tw_guest_entry *entry)
{
	struct tw_guest_tap *tap = &entry->tap;
	search_in(guests, entry, tap->pause_ms);
	tap->pause_ms = tap->pause_ms * 2 < PAUSE_MAX_MS ? tap->pause_ms * 2 : PAUSE_MAX_MS;
}

/* --- what was found --- */

static void set_trouble(struct tw_guest_entry *entry, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

static void set_trouble(struct tw_guest_entry *entry, const char *fmt, ...)
{
	char text[512];
	char subject[128];
	va_list args;
	va_start(args, fmt);
	vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	if (entry->tap.trouble && strcmp(entry->tap.trouble, text) == 0)
		return;
	snprintf(subject, sizeof(subject), "%s/%s", tw_guest_current(entry)->name, entry->vdev);
	tw_log(TW_LOG_WARN, subject, "no mirror: %s", text);
	free(entry->tap.trouble);
	entry->tap.trouble = strdup(text);
}

static const struct tw_vbd *find(const struct tw_guest_entry *entry, const struct tw_vbd *disks, size_t n)
{
	const struct tw_instance *current = tw_guest_current(entry);
	int pid, minor;
	if (!tw_vbd_of_backend(current->ids.kind, current->served, current->numbers, &pid, &minor))
		pid = minor = -1;
	return tw_taps_find(disks, n, pid, minor, current->image);
}

static bool is_good(struct tw_guest_entry *entry, const struct tw_vbd *disk)
{
	if (!disk)
		set_trouble(entry, "no tapdisk serves it (tap-ctl list); it is looked for again when xenstore tells of "
				   "another one, and now and then");
	else if (strcmp(disk->type, "aio") != 0)
		set_trouble(entry, "tapdisk %d:%d serves %s:%s, and only raw images are followed", disk->pid,
			disk->minor, disk->type, disk->path);
	else
		return true;
	return false;
}

static void take_found(struct tw_guest_entry *entry, const struct tw_vbd *disk)
{
	struct tw_guest_tap *tap = &entry->tap;
	struct stat st;
	free(TW_STEAL(tap->target));
	free(TW_STEAL(tap->image));
	free(TW_STEAL(tap->trouble));
	if (asprintf(&tap->target, "%d:%d", disk->pid, disk->minor) < 0)
		tap->target = NULL;
	tap->image = strdup(disk->path);
	if (!tap->image)
		free(TW_STEAL(tap->target));
	tap->waits = false;
	tap->found = stat(disk->path, &st) == 0;
	tap->device = !tap->found || S_ISBLK(st.st_mode) ? 0 : st.st_dev;
	tap->inode = !tap->found ? 0 : S_ISBLK(st.st_mode) ? st.st_rdev : st.st_ino;
}

/* What cannot be told for now is as it was. */
static void resolve(struct tw_guests *guests, struct tw_guest_entry *entry, const struct tw_vbd *disks, size_t n,
	const char *why)
{
	const struct tw_vbd *disk = why ? NULL : find(entry, disks, n);
	if (!why && !disk && entry->tap.next_at > guests->listed_from)
		return; /* it may have come since */
	if (why)
		set_trouble(entry, "%s", why);
	else
		free(TW_STEAL(entry->tap.target));
	if (!why && captured_otherwise(guests, entry)) {
		if (!tw_guest_current(entry)->image)
			set_trouble(entry, "its writes come by another capture, and xenstore does not name its image "
					   "(the key params)");
	} else if (!why && is_good(entry, disk)) {
		take_found(entry, disk);
	}
	if (!entry->tap.target || why)
		search_later(guests, entry);
	tw_guest_evaluate(guests, entry);
}

static void on_listed(void *arg, const struct tw_vbd *disks, size_t n, const char *why)
{
	struct tw_guests *guests = arg;
	struct tw_guest_entry *entry, *next;
	if (guests->stopping)
		return; /* nothing is said in xenstore any more */
	HASH_ITER (hh, guests->entries, entry, next)
		if (entry->tap.waits && entry->instances)
			resolve(guests, entry, disks, n, why);
	plan_search(guests);
}

/* --- what is planned --- */

/* By its image a disk is known that was detached by hand. */
static void forget_tap(struct tw_guest_entry *entry)
{
	char *image = entry->detached ? TW_STEAL(entry->tap.image) : NULL;
	tw_guest_tap_deinit(&entry->tap);
	entry->tap.image = image;
}

bool tw_guest_mirror_plan(struct tw_guests *guests, struct tw_guest_entry *entry)
{
	const struct tw_instance *current = tw_guest_current(entry);
	TW_AUTO_FREE char *asked = NULL;
	if (!tw_guest_wants_mirror(guests, entry)) {
		forget_tap(entry);
		return true;
	}
	if (asprintf(&asked, "%u %s %s %s", current->ids.domid, current->served, current->numbers,
		    current->image ? current->image : "") < 0) {
		asked = NULL;
		return false;
	}
	if (entry->tap.asked && strcmp(entry->tap.asked, asked) == 0)
		return entry->tap.target || goes_without(guests, entry);
	tw_guest_tap_deinit(&entry->tap);
	entry->tap.asked = TW_STEAL(asked);
	entry->tap.pause_ms = PAUSE_FIRST_MS;
	search_in(guests, entry, 0);
	return goes_without(guests, entry);
}

void tw_guest_mirror_report(
	struct tw_guests *guests, struct tw_guest_entry *entry, const struct tw_report *report)
{
	if (!entry->tap.target)
		return;
	if (report->state == TW_REPORT_LIVE)
		entry->tap.pause_ms = PAUSE_FIRST_MS;
	else if (report->state == TW_REPORT_FAILED && !entry->tap.waits)
		search_later(guests, entry);
}

/* --- detach --- */

static bool is_meant(const struct tw_guest_entry *entry, const char *who, const char *vdev)
{
	char number[16];
	const struct tw_instance *current = tw_guest_current(entry);
	if (!current || strcmp(entry->vdev, vdev) != 0)
		return false;
	snprintf(number, sizeof(number), "%u", current->ids.domid);
	return strcmp(number, who) == 0 || strcasecmp(entry->uuid, who) == 0 || strcmp(current->name, who) == 0;
}

/* A path's, when no device is named. */
static struct tw_guest_entry *find_entry(const struct tw_guests *guests, const char *who, const char *vdev)
{
	struct tw_guest_entry *entry, *next;
	struct stat file;
	const bool path = !*vdev && stat(who, &file) == 0;
	HASH_ITER (hh, guests->entries, entry, next)
		if (path ? entry->tap.image && tw_tapctl_is_file(entry->tap.image, &file)
			 : is_meant(entry, who, vdev))
			return entry;
	return NULL;
}

void tw_guests_detach(struct tw_guests *guests, const char *who, const char *vdev, struct tw_guest_detached *out)
{
	struct tw_guest_entry *entry = find_entry(guests, who, vdev);
	*out = (struct tw_guest_detached){ 0 };
	if (!entry || !entry->instances)
		return;
	if (tw_guest_wants_mirror(guests, entry)) {
		tw_log(TW_LOG_INFO, entry->vdev, "%s: detached by hand, until it is plugged anew or a reload", who);
		entry->detached = true;
		tw_guest_evaluate(guests, entry);
	}
	out->ours = entry->detached;
	out->gone = entry->detached && !tw_fleet_is_mirrored(guests->fleet, entry->state_dir);
}

/* --- the whole --- */

struct tw_error *tw_guest_mirrors_create(struct tw_guests *guests)
{
	guests->search = malloc(sizeof(*guests->search));
	if (!guests->search)
		return tw_error_nomem();
	uv_timer_init(guests->loop, guests->search);
	guests->search->data = guests;
	return tw_taps_create(guests->loop, on_listed, guests, &guests->taps);
}

static void free_timer(uv_handle_t *handle)
{
	free(handle);
}

void tw_guest_mirrors_destroy(struct tw_guests *guests)
{
	tw_taps_destroy(guests->taps);
	if (guests->search)
		uv_close((uv_handle_t *)guests->search, free_timer);
}
