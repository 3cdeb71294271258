/* SPDX-License-Identifier: BSD-3-Clause */
/* A guest's disk: its chain of images, its requests, pausing. */
#include "inside.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define RETRY_NS 5000000 /* tapdisk waits a second */

/* --- the chain --- */

static struct link *link_of_image(td_image_t *image)
{
	return (struct link *)((char *)image - offsetof(struct link, image));
}

static struct disk *disk_of(const td_request_t *treq)
{
	return (struct disk *)treq->vreq->vbd;
}

static void insert(struct list_head *node, struct list_head *after)
{
	node->prev = after;
	node->next = after->next;
	after->next->prev = node;
	after->next = node;
}

static int open_link(struct disk *disk, struct link *link, const struct tap_disk *ops,
	const char *name, struct list_head *after)
{
	memset(link, 0, sizeof(*link));
	link->ops = ops;
	link->disk = disk;
	link->flags = disk->flags;
	link->image.driver = &link->driver;
	link->driver.data = calloc(1, (size_t)ops->private_data_size + 1);
	if (!link->driver.data)
		abort();
#if TW_TAPDISK_API >= 316
	int ret = ops->td_open(&link->driver, name, NULL, disk->flags);
#else
	int ret = ops->td_open(&link->driver, name, disk->flags);
#endif
	if (ret)
		free(link->driver.data);
	else
		insert(&link->image.next, after);
	return ret;
}

static void close_link(struct link *link)
{
	link->ops->td_close(&link->driver);
	link->image.next.prev->next = link->image.next.next;
	link->image.next.next->prev = link->image.next.prev;
	free(link->driver.data);
	memset(link, 0, sizeof(*link));
}

static int open_chain(struct disk *disk)
{
	struct list_head *images = &disk->vbd.images;
	images->next = images->prev = images;
	if (disk->filtered) {
		int ret = open_link(disk, &disk->top, &tapdisk_tapwire, disk->spec, images);
		if (ret)
			return ret;
		images = &disk->top.image.next;
	}
	int ret = open_link(disk, &disk->file, &image_file, disk->path, images);
	if (ret) {
		/* As tapdisk does it with a chain from a file: freed, and not closed. */
		if (disk->filtered)
			free(disk->top.driver.data);
		return ret;
	}
	disk->open = true;
	disk->sectors = disk->file.driver.info.size;
	if (!disk->filtered)
		return 0;
	ret = tapdisk_tapwire.td_validate_parent(&disk->top.driver, &disk->file.driver, 0);
	disk->top.driver.info = disk->file.driver.info;
	return ret;
}

static void close_chain(struct disk *disk)
{
	if (!disk->open)
		return;
	disk->open = false;
	if (disk->filtered)
		close_link(&disk->top);
	if (disk->mirrored)
		free(disk->mirror.driver.data);
	disk->mirrored = false;
	close_link(&disk->file);
}

void disk_close_hard(struct disk *disk)
{
	tapdisk_tapwire.td_close(&disk->top.driver);
}

/* --- requests on their way down --- */

static struct request *take(struct disk *disk, struct request *request)
{
	for (int list = NEW; list <= FAILED; list++)
		for (struct request **at = &disk->lists[list]; *at; at = &(*at)->next)
			if (*at == request) {
				*at = request->next;
				return request;
			}
	abort();
}

static void put(struct disk *disk, enum list list, struct request *request)
{
	struct request **at = &disk->lists[list];
	while (*at)
		at = &(*at)->next;
	request->next = NULL;
	*at = request;
}

static void finish(struct request *request, int error)
{
	struct disk *disk = request->disk;
	done_fn *done = request->done;
	void *arg = request->arg;
	(void)take(disk, request);
	disk->waiting--;
	free(request);
	done(arg, error);
}

static void settle(struct request *request)
{
	struct disk *disk = request->disk;
	const int error = request->error;
	if (request->submitting || request->pending)
		return;
	if (!disk->closing && (error == -EBUSY || error == -EAGAIN || error == -EINTR))
		put(disk, FAILED, take(disk, request));
	else
		finish(request, error);
}

static void completed(td_request_t treq, int res)
{
	struct request *request = (struct request *)treq.vreq;
	if (treq.cb_data || treq.secs > request->pending)
		abort(); /* not what was given */
	request->pending -= treq.secs;
	if (res && !request->error)
		request->error = res;
	settle(request);
}

void td_complete_request(td_request_t treq, int res)
{
	treq.cb(treq, res);
}

static void to_image(td_image_t *image, td_request_t treq)
{
	struct link *link = link_of_image(image);
	treq.image = image;
	if (treq.op == TD_OP_WRITE && link->flags & TD_OPEN_RDONLY)
		td_complete_request(treq, -EPERM);
	else if (treq.op == TD_OP_WRITE)
		link->ops->td_queue_write(&link->driver, treq);
	else if (treq.op == TD_OP_READ)
		link->ops->td_queue_read(&link->driver, treq);
#if TW_TAPDISK_API >= 348
	else
		link->ops->td_queue_block_status(&link->driver, treq);
#endif
}

void td_forward_request(td_request_t treq)
{
	struct disk *disk = disk_of(&treq);
	struct request *request = (struct request *)treq.vreq;
	const bool raw = treq.vreq == &disk->raw;
	struct list_head *next = treq.image->next.next;
	if (disk->pausing || !disk->open) {
		td_complete_request(treq, -EBUSY);
		return;
	}
	if (next == &disk->vbd.images)
		abort(); /* below the file there is nothing */
	if (!raw)
		request->submitting++;
	to_image((td_image_t *)((char *)next - offsetof(td_image_t, next)), treq);
	if (raw)
		return;
	request->submitting--;
	settle(request);
}

static void issue(struct request *request)
{
	struct disk *disk = request->disk;
	td_sector_t sec = request->sec;
	put(disk, PENDING, take(disk, request));
	request->error = 0;
	request->tried_ns = host_now_ns();
	request->submitting = 1;
	for (unsigned i = 0; i < request->n; i++) {
		const td_request_t treq = {
			.op = request->op,
			.buf = request->segments[i].buf,
			.sec = sec,
			.secs = (int)request->segments[i].secs,
			.cb = completed,
			.sidx = (int)i,
			.vreq = &request->vreq,
		};
		request->pending += treq.secs;
		to_image((td_image_t *)((char *)disk->vbd.images.next - offsetof(td_image_t, next)),
			treq);
		sec += (td_sector_t)treq.secs;
	}
	request->submitting--;
	settle(request);
}

void disk_submit(struct disk *disk, int op, td_sector_t sec, const struct segment *segments, unsigned n,
	done_fn *done, void *arg)
{
	struct request *request = calloc(1, sizeof(*request));
	if (!request || n > HOST_MAX_SEGMENTS)
		abort();
	request->vreq.vbd = &disk->vbd;
	request->disk = disk;
	request->op = op;
	request->sec = sec;
	request->n = n;
	request->done = done;
	request->arg = arg;
	memcpy(request->segments, segments, n * sizeof(*segments));
	disk->waiting++;
	put(disk, NEW, request);
	if (disk->open && !disk->pausing)
		issue(request);
}

void disk_queue_raw(struct disk *disk, td_sector_t sec, unsigned secs, void *buf, td_callback_t cb, void *arg)
{
	const td_request_t treq = {
		.op = TD_OP_WRITE,
		.buf = buf,
		.sec = sec,
		.secs = (int)secs,
		.cb = cb,
		.cb_data = arg,
		.vreq = &disk->raw,
	};
	disk->raw.vbd = &disk->vbd;
	to_image(&disk->top.image, treq);
}

unsigned disk_waiting(const struct disk *disk)
{
	return disk->waiting;
}

bool disk_step(struct disk *disk)
{
	bool worked = false;
	if (disk->pausing && disk->open && !disk->lists[PENDING]) {
		close_chain(disk);
		disk->paused = worked = true;
	}
	if (!disk->open || disk->pausing)
		return worked;
	const int64_t now = host_now_ns();
	for (struct request *next, *request = disk->lists[FAILED]; request; request = next) {
		next = request->next;
		if (request->tried_ns >= now)
			continue; /* tried in this step, and refused again */
		if (request->error == -EBUSY || now - request->tried_ns >= RETRY_NS) {
			issue(request);
			worked = true;
		}
	}
	while (disk->lists[NEW]) {
		issue(disk->lists[NEW]);
		worked = true;
	}
	return worked;
}

void disk_drain(struct disk *disk)
{
	while (disk->waiting)
		host_step(disk->host, 2);
}

/* --- disks --- */

struct disk *disk_create(struct host *host, const char *spec, const char *image, td_flag_t flags)
{
	struct disk *disk = calloc(1, sizeof(*disk));
	if (!disk || !(disk->path = strdup(image)))
		abort();
	disk->host = host;
	disk->flags = flags;
	disk->filtered = spec != NULL;
	snprintf(disk->spec, sizeof(disk->spec), "%s", spec ? spec : "");
	const int ret = open_chain(disk);
	if (ret) {
		free(disk->path);
		free(disk);
		errno = -ret;
		return NULL;
	}
	disk->next = host->disks;
	host->disks = disk;
	return disk;
}

void disk_destroy(struct disk *disk)
{
	struct disk **at = &disk->host->disks;
	disk->closing = true;
	disk->pausing = true;
	while (disk->lists[PENDING] || disk->under_way)
		host_step(disk->host, 2);
	close_chain(disk);
	for (int list = NEW; list <= FAILED; list++)
		while (disk->lists[list])
			finish(disk->lists[list], -ESHUTDOWN);
	while (*at != disk)
		at = &(*at)->next;
	*at = disk->next;
	free(disk->path);
	free(disk);
}

struct faults *disk_faults(struct disk *disk)
{
	return &disk->faults;
}

uint64_t disk_sectors(const struct disk *disk)
{
	return disk->sectors;
}

void disk_pause(struct disk *disk)
{
	disk->pausing = true;
}

bool disk_paused(const struct disk *disk)
{
	return disk->paused;
}

int disk_resume(struct disk *disk, const char *spec)
{
	while (!disk->paused)
		host_step(disk->host, 2);
	if (spec)
		snprintf(disk->spec, sizeof(disk->spec), "%s", spec);
	const int ret = open_chain(disk);
	if (ret)
		return ret;
	disk->pausing = disk->paused = false;
	return 0;
}

static void mirror_write(td_driver_t *driver, td_request_t treq)
{
	struct link *link = (struct link *)((char *)driver - offsetof(struct link, driver));
	link->disk->mirrored_secs += (uint64_t)treq.secs;
	td_complete_request(treq, 0);
}

void disk_insert_mirror(struct disk *disk)
{
	static const struct tap_disk mirror = {
		.td_queue_write = mirror_write, .td_queue_read = mirror_write};
	memset(&disk->mirror, 0, sizeof(disk->mirror));
	disk->mirror.ops = &mirror;
	disk->mirror.disk = disk;
	disk->mirror.image.driver = &disk->mirror.driver;
	insert(&disk->mirror.image.next, &disk->top.image.next);
	disk->mirrored = true;
}

uint64_t disk_mirrored(const struct disk *disk)
{
	return disk->mirrored_secs;
}

/* --- statistics --- */

struct tapdisk_stats_ctx {
	char *out;
	size_t size;
};

void tapdisk_stats_field(td_stats_t *stats, const char *key, const char *conversion, ...)
{
	char format[16];
	va_list args;
	snprintf(format, sizeof(format), "%%%s", conversion);
	int n = snprintf(stats->out, stats->size, "%s ", key);
	stats->out += n;
	stats->size -= (size_t)n;
	va_start(args, conversion);
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
	n = vsnprintf(stats->out, stats->size, format, args);
#pragma GCC diagnostic pop
	va_end(args);
	stats->out += n;
	stats->size -= (size_t)n;
	*stats->out++ = '\n';
	stats->size--;
	*stats->out = '\0';
}

void disk_stats(struct disk *disk, char *out, size_t size)
{
	td_stats_t stats = {out, size};
	*out = '\0';
	if (disk->open && disk->filtered)
		tapdisk_tapwire.td_stats(&disk->top.driver, &stats);
}

uint64_t disk_stat(struct disk *disk, const char *key)
{
	char text[2048], *save;
	disk_stats(disk, text, sizeof(text));
	for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		const size_t len = strlen(key);
		if (strncmp(line, key, len) == 0 && line[len] == ' ')
			return strtoull(line + len + 1, NULL, 10);
	}
	return UINT64_MAX;
}

void disk_debug(struct disk *disk)
{
	tapdisk_tapwire.td_debug(&disk->top.driver);
}
