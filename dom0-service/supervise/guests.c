/* SPDX-License-Identifier: BSD-3-Clause */
#include "supervise/guests.h"
#include "base/log.h"
#include "base/scope.h"
#include "content/rules.h"
#include "ring.h"
#include "supervise/guests_inside.h"
#include "supervise/paths.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <utlist.h>
#include <xxhash.h>

/* How often it is looked whether the captures still run of disks that xenstore has forgotten. */
#define ORPHANS_MS 5000
/* So long after a guest has gone it is looked whether a ring is left that nobody knows of: guests may come and go
 * faster than they are looked at. */
#define LEFTOVERS_MS 3000

/* --- entries --- */

const struct tw_instance *tw_guest_current(const struct tw_guest_entry *entry)
{
	return entry->instances ? entry->instances->prev : NULL; /* utlist: the head's prev is the last */
}

static void free_instance(struct tw_guest_entry *entry, struct tw_instance *instance)
{
	DL_DELETE(entry->instances, instance);
	free(instance->name);
	free(instance->image);
	free(instance->params);
	free(instance->script);
	free(instance->served);
	free(instance->numbers);
	free(instance->problem);
	free(instance);
}

static void free_entry(struct tw_guests *guests, struct tw_guest_entry *entry)
{
	if (entry->hh.tbl)
		HASH_DEL(guests->entries, entry);
	tw_guest_forget_image(guests, entry);
	guests->failing -= entry->failing;
	while (entry->instances)
		free_instance(entry, entry->instances);
	free(entry->vdev);
	free(entry->state_dir);
	free(entry->ring);
	free(entry->content);
	free(entry->refused);
	tw_guest_tap_deinit(&entry->tap);
	free(entry);
}

static struct tw_guest_entry *find(const struct tw_guests *guests, const char *state_dir)
{
	struct tw_guest_entry *entry;
	HASH_FIND_STR(guests->entries, state_dir, entry);
	return entry;
}

static struct tw_error *get_entry(
	struct tw_guests *guests, const char *uuid, const char *vdev, struct tw_guest_entry **out)
{
	TW_AUTO_FREE char *state_dir = NULL;
	if (asprintf(&state_dir, "%s/guests/%s/%s", guests->config->state_dir, uuid, vdev) < 0) {
		state_dir = NULL;
		return tw_error_nomem();
	}
	*out = find(guests, state_dir);
	if (*out)
		return NULL;
	struct tw_guest_entry *entry = calloc(1, sizeof(*entry));
	if (!entry)
		return tw_error_nomem();
	snprintf(entry->uuid, sizeof(entry->uuid), "%s", uuid);
	entry->vdev = strdup(vdev);
	entry->state_dir = TW_STEAL(state_dir);
	if (asprintf(&entry->ring, "%s/%s-%s.ring", guests->config->ring_dir, uuid, vdev) < 0)
		entry->ring = NULL;
	if (!entry->vdev || !entry->ring) {
		free_entry(guests, entry);
		return tw_error_nomem();
	}
	HASH_ADD_KEYPTR(hh, guests->entries, entry->state_dir, strlen(entry->state_dir), entry);
	*out = entry;
	return NULL;
}

/* A driver domain may not know who its guests are: then the image tells, which stays the same, too. */
static void uuid_of_image(const struct tw_guests *guests, const char *image, char out[TW_XS_UUID_MAX])
{
	TW_AUTO_FREE char *text = tw_path_join(guests->host, image);
	XXH128_hash_t h = XXH3_128bits(text ? text : image, strlen(text ? text : image));
	/* Version 8: made by a rule of one's own (RFC 9562). */
	snprintf(out, TW_XS_UUID_MAX, "%08x-%04x-8%03x-%04x-%012llx", (unsigned)(h.high64 >> 32),
		(unsigned)(h.high64 >> 16 & 0xffff), (unsigned)(h.high64 & 0xfff),
		(unsigned)(h.low64 >> 48 & 0x3fff) | 0x8000, (unsigned long long)(h.low64 & 0xffffffffffff));
}

/* --- what is said in xenstore --- */

static void tell_instance(struct tw_guests *guests, const struct tw_guest_entry *entry,
	const struct tw_instance *instance, const char *state, const char *error)
{
	const struct tw_told_disk told = {
		.ids = instance->ids,
		.state = state,
		.ring = entry->ring,
		.events = entry->report.events,
		.lag = entry->report.lag,
		.error = (char *)error,
	};
	if (!instance->orphan)
		tw_domains_tell_disk(guests->domains, &told);
}

/* Of the one that counts, what its inspector does; of a disk that is refused, why, if it was meant to be watched. */
static void tell(struct tw_guests *guests, struct tw_guest_entry *entry)
{
	const struct tw_instance *current = tw_guest_current(entry);
	const struct tw_report *report = &entry->report;
	const char *failure = tw_guest_failure(guests, entry);
	struct tw_instance *instance;
	guests->failing += (failure != NULL) - entry->failing;
	entry->failing = failure != NULL;
	DL_FOREACH (entry->instances, instance) {
		if (instance != current)
			tell_instance(guests, entry, instance, NULL, NULL);
		else if (failure)
			tell_instance(guests, entry, instance, tw_report_state_name(TW_REPORT_FAILED), failure);
		else if (entry->put && report->state != TW_REPORT_WAITING)
			tell_instance(guests, entry, instance, tw_report_state_name(report->state),
				*report->error    ? report->error
				: *report->remark ? report->remark
						  : NULL);
		else
			tell_instance(guests, entry, instance, NULL, NULL);
	}
}

static void tell_service(struct tw_guests *guests)
{
	size_t live, failed;
	if (!guests->domains || guests->stopping)
		return;
	tw_fleet_count(guests->fleet, &live, &failed);
	const struct tw_told_service service = {
		.health = guests->ending                            ? "stopping"
			  : !guests->complete                      ? "starting"
			  : failed || guests->failing || !guests->courier ? "degraded"
								  : "good",
		.pid = (uint64_t)getpid(),
		.disks = live,
	};
	tw_domains_tell_service(guests->domains, &service);
}

/* --- decisions --- */

void tw_guest_spec(const struct tw_guests *guests, const struct tw_guest_entry *entry, char name[128],
	struct tw_disk_spec *out)
{
	const struct tw_instance *current = tw_guest_current(entry);
	const struct tw_config_guest *rule =
		tw_config_match(guests->config, current->name, entry->uuid, entry->vdev);
	snprintf(name, 128, "%s/%s", *current->name ? current->name : entry->uuid, entry->vdev);
	*out = (struct tw_disk_spec){
		.name = name,
		.image = entry->tap.target ? entry->tap.image : current->image,
		.ring = entry->ring,
		.state_dir = entry->state_dir,
		.tapdisk = entry->tap.target,
		.tap_ctl = entry->tap.target ? guests->config->tap_ctl : NULL,
		.stall_ms = entry->tap.target ? (unsigned)guests->config->mirror_stall_ms : 0,
		.tries = entry->tap.target ? (unsigned)guests->config->mirror_tries : 0,
		.courier_socket = guests->courier_socket,
		.id = { .host = guests->host,
			.domain_uuid = entry->uuid,
			.domain_name = *current->name ? current->name : "-",
			.domid = current->ids.domid,
			.vdev = entry->vdev },
		.content = entry->content,
		.memory_max = rule ? rule->memory_max : 0,
		.nice = rule ? (int)rule->nice : 0,
	};
}

/* *why is NULL when the disk is to be watched, or ignored (*ignored). The caller frees it. */
static struct tw_error *decide(
	struct tw_guests *guests, struct tw_guest_entry *entry, char **why, bool *ignored)
{
	const struct tw_instance *current = tw_guest_current(entry);
	const struct tw_config_guest *rule =
		tw_config_match(guests->config, current->name, entry->uuid, entry->vdev);
	*why = NULL;
	*ignored = current->cdrom || (rule && !rule->watch);
	tw_guest_stop_waiting(guests, entry);
	if (*ignored)
		return NULL;
	/* Its tapdisk knows which image it is. */
	if (current->problem && (current->image || !tw_guest_wants_mirror(guests, entry))) {
		*why = strdup(current->problem);
		return *why ? NULL : tw_error_nomem();
	}
	const struct tw_guest_entry *rival = tw_guest_rival(guests, entry);
	if (!rival)
		return NULL;
	tw_guest_await(guests, entry);
	if (asprintf(why, "the image is also %s of the guest %s, and one of them may write it", rival->vdev,
		    tw_guest_current(rival)->name) < 0) {
		*why = NULL;
		return tw_error_nomem();
	}
	return NULL;
}

static void note_refusal(const struct tw_guests *guests, struct tw_guest_entry *entry, char *why)
{
	const struct tw_instance *current = tw_guest_current(entry);
	bool new = why && (!entry->refused || strcmp(entry->refused, why) != 0);
	char subject[128];
	if (new && tw_guest_is_meant(guests, entry)) {
		snprintf(subject, sizeof(subject), "%s/%s", current->name, entry->vdev);
		tw_log(TW_LOG_ERROR, subject, "not watched: %s", why);
	}
	free(entry->refused);
	entry->refused = why;
}

static struct tw_error *plan_content(const struct tw_guests *guests, struct tw_guest_entry *entry)
{
	free(entry->content);
	entry->content = NULL;
	return tw_content_plan(
		guests->config, tw_guest_current(entry)->name, entry->uuid, &entry->content);
}

static struct tw_error *evaluate(struct tw_guests *guests, struct tw_guest_entry *entry)
{
	char name[128];
	char *why;
	bool ignored;
	struct tw_disk_spec spec;
	if (!entry->instances) {
		tw_fleet_drop(guests->fleet, entry->state_dir, true);
		free_entry(guests, entry);
		return NULL;
	}
	TW_TRY(decide(guests, entry, &why, &ignored));
	note_refusal(guests, entry, why);
	if (why || ignored || !tw_guest_mirror_plan(guests, entry)) {
		tw_fleet_drop(guests->fleet, entry->state_dir, false);
		entry->put = false;
		tw_guest_hold(guests, entry);
		entry->report = (struct tw_report){ 0 };
	} else {
		TW_TRY(plan_content(guests, entry));
		tw_guest_spec(guests, entry, name, &spec);
		entry->put = true;
		tw_guest_hold(guests, entry);
		TW_TRY(tw_fleet_put(guests->fleet, &spec));
	}
	tell(guests, entry);
	return NULL;
}

static void complain(struct tw_error *err)
{
	if (err)
		tw_log(TW_LOG_ERROR, "", "%s", tw_error_message(err));
	tw_error_destroy(err);
}

void tw_guest_reconsider(struct tw_guests *guests, struct tw_guest_entry *entry)
{
	complain(evaluate(guests, entry));
}

void tw_guest_evaluate(struct tw_guests *guests, struct tw_guest_entry *entry)
{
	complain(evaluate(guests, entry));
	tw_guest_serve_waiters(guests);
	tell_service(guests);
}

/* --- what xenstore tells --- */

static struct tw_instance *find_instance(struct tw_guest_entry *entry, const struct tw_xs_ids *ids)
{
	struct tw_instance *instance;
	DL_FOREACH (entry->instances, instance)
		if (instance->ids.domid == ids->domid && instance->ids.devid == ids->devid &&
			strcmp(instance->ids.kind, ids->kind) == 0)
			return instance;
	return NULL;
}

static bool set_text(char **field, const char *text)
{
	char *copy = text ? strdup(text) : NULL;
	if (text && !copy)
		return false;
	free(*field);
	*field = copy;
	return true;
}

static struct tw_error *fill_instance(struct tw_instance *instance, const struct tw_guest *guest,
	const struct tw_guest_disk *disk, const struct tw_xs_ids *ids)
{
	instance->ids = *ids;
	instance->seen = true;
	instance->orphan = false;
	instance->by_tapdisk = disk->by_tapdisk;
	instance->read_only = disk->read_only;
	instance->cdrom = disk->cdrom;
	instance->found = disk->found;
	instance->device = disk->device;
	instance->inode = disk->inode;
	bool good = set_text(&instance->name, guest->name) && set_text(&instance->image, disk->image) &&
		    set_text(&instance->params, disk->params) && set_text(&instance->script, disk->script) &&
		    set_text(&instance->served, disk->served) && set_text(&instance->numbers, disk->numbers) &&
		    set_text(&instance->problem, disk->problem);
	return good ? NULL : tw_error_nomem();
}

static struct tw_error *take_disk(
	struct tw_guests *guests, const struct tw_guest *guest, const struct tw_guest_disk *disk)
{
	struct tw_guest_entry *entry;
	struct tw_xs_ids ids = { .domid = guest->domid, .devid = disk->devid };
	char uuid[TW_XS_UUID_MAX];
	char vdev[40];
	memcpy(ids.kind, disk->kind, sizeof(ids.kind));
	memcpy(uuid, guest->uuid, sizeof(uuid));
	if (!guest->named)
		uuid_of_image(guests, disk->image ? disk->image : disk->params, uuid);
	if (*disk->vdev)
		snprintf(vdev, sizeof(vdev), "%s", disk->vdev);
	else
		snprintf(vdev, sizeof(vdev), "%s-%u", disk->kind, disk->devid);
	TW_TRY(get_entry(guests, uuid, vdev, &entry));
	struct tw_instance *instance = find_instance(entry, &ids);
	if (!instance) {
		instance = calloc(1, sizeof(*instance));
		if (!instance)
			return tw_error_nomem();
		DL_APPEND(entry->instances, instance);
	}
	TW_TRY(fill_instance(instance, guest, disk, &ids));
	tw_guest_hold(guests, entry);
	return NULL;
}

/* xenstored may have forgotten a disk that a guest goes on writing to. */
static bool becomes_orphan(const struct tw_guest_entry *entry, bool again)
{
	return again && entry->put && tw_ring_has_producer(entry->ring);
}

static void watch_orphans(struct tw_guests *guests);

/* What was not in the reading is gone. */
static void sweep(struct tw_guests *guests, struct tw_guest_entry *entry, unsigned domid, bool again)
{
	struct tw_instance *instance, *next;
	DL_FOREACH_SAFE (entry->instances, instance, next) {
		if (instance->ids.domid != domid || instance->seen)
			continue;
		tw_domains_forget_disk(guests->domains, &instance->ids);
		if (!instance->orphan && becomes_orphan(entry, again)) {
			instance->orphan = true;
			watch_orphans(guests);
		} else if (!instance->orphan) {
			free_instance(entry, instance);
		}
	}
}

static void on_leftovers(uv_timer_t *timer)
{
	struct tw_guests *guests = timer->data;
	if (guests->complete)
		tw_leftovers_drain(guests);
}

static void on_guest(void *arg, unsigned domid, const struct tw_guest *guest, bool again)
{
	struct tw_guests *guests = arg;
	struct tw_guest_entry *entry, *next;
	struct tw_instance *instance;
	HASH_ITER (hh, guests->entries, entry, next)
		DL_FOREACH (entry->instances, instance)
			if (instance->ids.domid == domid)
				instance->seen = false;
	for (size_t i = 0; guest && i < guest->ndisks; i++)
		complain(take_disk(guests, guest, &guest->disks[i]));
	HASH_ITER (hh, guests->entries, entry, next) {
		bool touched = false;
		DL_FOREACH (entry->instances, instance)
			touched |= instance->ids.domid == domid;
		if (!touched)
			continue;
		sweep(guests, entry, domid, again);
		complain(evaluate(guests, entry));
	}
	tw_guest_serve_waiters(guests);
	tell_service(guests);
	if (!guest)
		uv_timer_start(guests->leftovers, on_leftovers, LEFTOVERS_MS, 0);
}

static void on_orphans(uv_timer_t *timer)
{
	struct tw_guests *guests = timer->data;
	struct tw_guest_entry *entry, *next;
	struct tw_instance *instance, *next_instance;
	bool left = false;
	HASH_ITER (hh, guests->entries, entry, next) {
		bool alive = tw_ring_has_producer(entry->ring);
		bool dropped = false;
		DL_FOREACH_SAFE (entry->instances, instance, next_instance) {
			left |= instance->orphan && alive;
			if (!instance->orphan || alive)
				continue;
			free_instance(entry, instance);
			dropped = true;
		}
		if (dropped)
			complain(evaluate(guests, entry));
	}
	if (!left)
		uv_timer_stop(timer);
}

static void watch_orphans(struct tw_guests *guests)
{
	if (!uv_is_active((uv_handle_t *)guests->orphans))
		uv_timer_start(guests->orphans, on_orphans, ORPHANS_MS, ORPHANS_MS);
}

static void on_complete(void *arg)
{
	struct tw_guests *guests = arg;
	if (!guests->complete)
		tw_leftovers_drain(guests);
	guests->complete = true;
	tell_service(guests);
}

static void on_lost(void *arg, const char *text)
{
	const struct tw_guests *guests = arg;
	enum tw_log_level level = guests->complete || guests->config->xenstore == TW_XENSTORE_ON ? TW_LOG_WARN
												  : TW_LOG_INFO;
	tw_log(level, "", "%s; %s", text,
		guests->complete ? "what is watched goes on" : "guests are not looked for until there is one");
}

/* --- what the fleet tells --- */

void tw_guests_disk_changed(
	struct tw_guests *guests, const struct tw_disk_spec *spec, const struct tw_report *report)
{
	struct tw_guest_entry *entry = find(guests, spec->state_dir);
	if (!guests->domains || guests->stopping)
		return;
	if (entry && entry->put) {
		if (report->state == TW_REPORT_STARTING)
			tw_leftovers_note(spec);
		entry->report = *report;
		tw_guest_mirror_report(guests, entry, report);
		tell(guests, entry);
	}
	tell_service(guests);
}

void tw_guests_disk_gone(struct tw_guests *guests, const char *state_dir)
{
	(void)state_dir;
	tell_service(guests);
}

void tw_guests_courier(struct tw_guests *guests, bool live)
{
	guests->courier = live;
	tell_service(guests);
}

/* --- the whole --- */

static const struct tw_domains_ops domains_ops = { .guest = on_guest, .complete = on_complete, .lost = on_lost };

struct tw_error *tw_guests_create(uv_loop_t *loop, struct tw_fleet *fleet, const struct tw_config *config,
	const char *host, const char *courier_socket, struct tw_guests **out)
{
	struct tw_guests *guests = calloc(1, sizeof(*guests));
	if (!guests)
		return tw_error_nomem();
	*guests = (struct tw_guests){
		.loop = loop,
		.fleet = fleet,
		.config = config,
		.host = host,
		.courier_socket = courier_socket,
		.orphans = malloc(sizeof(uv_timer_t)),
		.leftovers = malloc(sizeof(uv_timer_t)),
	};
	if (!guests->orphans || !guests->leftovers) {
		free(guests->orphans);
		free(guests->leftovers);
		free(guests);
		return tw_error_nomem();
	}
	uv_timer_init(loop, guests->orphans);
	uv_timer_init(loop, guests->leftovers);
	guests->orphans->data = guests->leftovers->data = guests;
	struct tw_error *err = tw_guest_mirrors_create(guests);
	if (!err && config->xenstore != TW_XENSTORE_OFF)
		err = tw_domains_create(loop, &domains_ops, guests, &guests->domains);
	if (err)
		tw_guests_destroy(guests);
	else
		*out = guests;
	return err;
}

void tw_guests_start(struct tw_guests *guests)
{
	if (!guests->domains)
		return;
	complain(tw_path_make_dir(guests->config->ring_dir));
	tw_domains_start(guests->domains);
	tell_service(guests);
}

void tw_guests_ending(struct tw_guests *guests)
{
	guests->ending = true;
	tell_service(guests);
}

void tw_guests_stop(struct tw_guests *guests, void (*stopped)(void *arg), void *arg)
{
	guests->stopping = true;
	uv_timer_stop(guests->orphans);
	uv_timer_stop(guests->leftovers);
	uv_timer_stop(guests->search);
	if (guests->domains)
		tw_domains_stop(guests->domains, stopped, arg);
	else
		stopped(arg);
}

static void free_timer(uv_handle_t *handle)
{
	free(handle);
}

void tw_guests_destroy(struct tw_guests *guests)
{
	struct tw_guest_entry *entry, *next;
	if (!guests)
		return;
	tw_domains_destroy(guests->domains);
	tw_guest_mirrors_destroy(guests);
	HASH_ITER (hh, guests->entries, entry, next)
		free_entry(guests, entry);
	tw_guest_images_destroy(guests);
	uv_close((uv_handle_t *)guests->orphans, free_timer);
	uv_close((uv_handle_t *)guests->leftovers, free_timer);
	free(guests);
}

void tw_guests_reload(struct tw_guests *guests, const struct tw_config *config)
{
	struct tw_guest_entry *entry, *next;
	guests->config = config;
	HASH_ITER (hh, guests->entries, entry, next) {
		entry->detached = false;
		complain(evaluate(guests, entry));
	}
	tw_guest_serve_waiters(guests);
	tell_service(guests);
}
