/* SPDX-License-Identifier: BSD-3-Clause */
#include "domains/told.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/scope.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

struct disk {
	struct {
		char kind[TW_XS_KIND_MAX];
		uint32_t domid;
		uint32_t devid;
	} key;
	struct tw_told_disk told;
	bool waits;
	struct disk *prev, *next; /* of those that wait */
	UT_hash_handle hh;
};

struct tw_told {
	struct disk *disks;
	struct disk *waiting;
	struct tw_told_service service;
	bool service_waits;
};

struct tw_told_batch {
	struct tw_told_service service;
	bool has_service;
	struct tw_told_disk *disks;
	size_t ndisks;
};

static void release(struct tw_told_disk *disk)
{
	free(disk->ring);
	free(disk->error);
	disk->ring = disk->error = NULL;
}

static struct tw_error *copy_disk(const struct tw_told_disk *from, struct tw_told_disk *to)
{
	*to = *from;
	to->ring = strdup(from->ring ? from->ring : "");
	to->error = from->error ? strdup(from->error) : NULL;
	if (to->ring && (to->error || !from->error))
		return NULL;
	release(to);
	return tw_error_nomem();
}

struct tw_error *tw_told_create(struct tw_told **out)
{
	*out = calloc(1, sizeof(**out));
	return *out ? NULL : tw_error_nomem();
}

static void unqueue(struct tw_told *told, struct disk *disk)
{
	if (disk->waits)
		DL_DELETE(told->waiting, disk);
	disk->waits = false;
}

static void enqueue(struct tw_told *told, struct disk *disk)
{
	if (!disk->waits)
		DL_APPEND(told->waiting, disk);
	disk->waits = true;
}

static void drop(struct tw_told *told, struct disk *disk)
{
	unqueue(told, disk);
	HASH_DEL(told->disks, disk);
	release(&disk->told);
	free(disk);
}

void tw_told_destroy(struct tw_told *told)
{
	if (!told)
		return;
	while (told->disks)
		drop(told, told->disks);
	free(told);
}

static struct disk *find(const struct tw_told *told, const struct tw_xs_ids *ids)
{
	struct disk probe = { 0 };
	struct disk *disk;
	strcpy(probe.key.kind, ids->kind);
	probe.key.domid = ids->domid;
	probe.key.devid = ids->devid;
	HASH_FIND(hh, told->disks, &probe.key, sizeof(probe.key), disk);
	return disk;
}

static struct disk *add(struct tw_told *told, const struct tw_xs_ids *ids)
{
	struct disk *disk = calloc(1, sizeof(*disk));
	if (!disk)
		return NULL;
	strcpy(disk->key.kind, ids->kind);
	disk->key.domid = ids->domid;
	disk->key.devid = ids->devid;
	HASH_ADD(hh, told->disks, key, sizeof(disk->key), disk);
	return disk;
}

static bool same_text(const char *a, const char *b)
{
	return a && b ? strcmp(a, b) == 0 : a == b;
}

struct tw_error *tw_told_disk(struct tw_told *told, const struct tw_told_disk *what, bool *urgent)
{
	struct disk *disk = find(told, &what->ids);
	*urgent = false;
	if (disk) {
		*urgent = !same_text(disk->told.state, what->state) || !same_text(disk->told.ring, what->ring) ||
			  !same_text(disk->told.error, what->error);
		if (!*urgent && disk->told.events == what->events && disk->told.lag == what->lag)
			return NULL;
	} else {
		*urgent = true;
		disk = add(told, &what->ids);
		if (!disk)
			return tw_error_nomem();
	}
	struct tw_told_disk copy;
	TW_TRY(copy_disk(what, &copy));
	release(&disk->told);
	disk->told = copy;
	enqueue(told, disk);
	return NULL;
}

void tw_told_forget(struct tw_told *told, const struct tw_xs_ids *ids)
{
	struct disk *disk = find(told, ids);
	if (disk)
		drop(told, disk);
}

bool tw_told_service(struct tw_told *told, const struct tw_told_service *service)
{
	const struct tw_told_service *now = &told->service;
	if (same_text(now->health, service->health) && now->pid == service->pid && now->disks == service->disks)
		return false;
	told->service = *service;
	told->service_waits = true;
	return true;
}

void tw_told_again(struct tw_told *told)
{
	struct disk *disk, *next;
	HASH_ITER (hh, told->disks, disk, next) {
		if (disk->told.state)
			enqueue(told, disk);
		else
			drop(told, disk);
	}
	told->service_waits = told->service.health != NULL;
}

void tw_told_retract(struct tw_told *told)
{
	struct disk *disk, *next;
	HASH_ITER (hh, told->disks, disk, next) {
		disk->told.state = NULL;
		enqueue(told, disk);
	}
	told->service_waits = told->service.health != NULL;
	told->service = (struct tw_told_service){ 0 };
}

bool tw_told_waits(const struct tw_told *told)
{
	return told->waiting || told->service_waits;
}

/* --- batches --- */

static struct tw_error *take_disks(struct tw_told *told, size_t max, struct tw_told_batch *batch)
{
	batch->disks = calloc(max, sizeof(*batch->disks));
	if (!batch->disks)
		return tw_error_nomem();
	while (told->waiting && batch->ndisks < max) {
		struct disk *disk = told->waiting;
		TW_TRY(copy_disk(&disk->told, &batch->disks[batch->ndisks]));
		batch->ndisks++;
		if (disk->told.state)
			unqueue(told, disk);
		else
			drop(told, disk);
	}
	return NULL;
}

struct tw_error *tw_told_take(struct tw_told *told, size_t max, struct tw_told_batch **out)
{
	*out = NULL;
	if (!tw_told_waits(told))
		return NULL;
	struct tw_told_batch *batch = calloc(1, sizeof(*batch));
	if (!batch)
		return tw_error_nomem();
	struct tw_error *err = take_disks(told, max, batch);
	if (err) {
		tw_told_batch_free(batch);
		return err;
	}
	batch->service = told->service;
	batch->has_service = told->service_waits;
	told->service_waits = false;
	*out = batch;
	return NULL;
}

void tw_told_batch_free(struct tw_told_batch *batch)
{
	if (!batch)
		return;
	for (size_t i = 0; i < batch->ndisks; i++)
		release(&batch->disks[i]);
	free(batch->disks);
	free(batch);
}

static struct tw_error *write_disk(const struct tw_told_disk *disk, struct tw_store *store, unsigned self)
{
	char parent[TW_XS_PATH_MAX], dir[TW_XS_PATH_MAX], events[24], lag[24];
	struct tw_xs_ids ids = disk->ids;
	ids.self = self;
	tw_xs_path(TW_XS_DISK, &ids, parent);
	tw_xs_path(TW_XS_DISK_OURS, &ids, dir);
	if (!disk->state)
		return tw_store_remove(store, dir);
	snprintf(events, sizeof(events), "%" PRIu64, disk->events);
	snprintf(lag, sizeof(lag), "%" PRIu64, disk->lag);
	const struct tw_store_value values[] = {
		{ tw_xs_name(TW_XS_DISK_STATE), disk->state },
		{ tw_xs_name(TW_XS_DISK_RING), disk->ring },
		{ tw_xs_name(TW_XS_DISK_EVENTS), events },
		{ tw_xs_name(TW_XS_DISK_LAG), lag },
		{ tw_xs_name(TW_XS_DISK_ERROR), disk->error },
	};
	return tw_store_write_dir(
		store, parent, dir, self, values, sizeof(values) / sizeof(values[0]), NULL);
}

static struct tw_error *write_service(
	const struct tw_told_service *service, struct tw_store *store, unsigned self)
{
	char dir[TW_XS_PATH_MAX], pid[24], disks[24];
	struct tw_xs_ids ids = { .self = self };
	tw_xs_path(TW_XS_SERVICE, &ids, dir);
	if (!service->health)
		return tw_store_remove(store, dir);
	snprintf(pid, sizeof(pid), "%" PRIu64, service->pid);
	snprintf(disks, sizeof(disks), "%" PRIu64, service->disks);
	const struct tw_store_value values[] = {
		{ tw_xs_name(TW_XS_SERVICE_VERSION), TW_VERSION },
		{ tw_xs_name(TW_XS_SERVICE_PID), pid },
		{ tw_xs_name(TW_XS_SERVICE_HEALTH), service->health },
		{ tw_xs_name(TW_XS_SERVICE_DISKS), disks },
	};
	return tw_store_write_dir(
		store, NULL, dir, self, values, sizeof(values) / sizeof(values[0]), NULL);
}

/* xenstored may refuse (a quota of a driver domain); what it did not take is not worth more than a line. */
static struct tw_error *tolerate(struct tw_error *err)
{
	if (!err || tw_error_code(err) == TW_UNAVAILABLE)
		return err;
	tw_log(TW_LOG_WARN, "", "%s", tw_error_message(err));
	tw_error_destroy(err);
	return NULL;
}

struct tw_error *tw_told_write(const struct tw_told_batch *batch, struct tw_store *store, unsigned self)
{
	for (size_t i = 0; i < batch->ndisks; i++)
		TW_TRY(tolerate(write_disk(&batch->disks[i], store, self)));
	return batch->has_service ? tolerate(write_service(&batch->service, store, self)) : NULL;
}
