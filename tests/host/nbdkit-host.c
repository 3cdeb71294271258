/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The test host as an nbdkit plugin, so that a kernel can mount what the tapdisk driver is above of:
 *
 *   nbdkit host.so rings=DIR disk=SPEC:FILE [disk=...] [FAULT=N ...] [pause-every=N] [seed=N]
 *
 * SPEC is what stands behind "tapwire:" (nothing: a disk without the driver); a disk's export is its
 * SPEC up to a comma, and the first disk is the default one. FAULT: a member of struct faults. With
 * pause-every all disks are paused each so-manieth time round the loop, while requests wait. As a
 * tapdisk it offers neither flush nor discard, and all disks share one thread.
 */
#define NBDKIT_API_VERSION 2
#include <nbdkit-plugin.h>

#include "host.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define THREAD_MODEL NBDKIT_THREAD_MODEL_PARALLEL
#define MAX_DISKS 16
#define MAX_SECS 128u /* of a segment */

static struct {
	char *spec, *file;
	struct disk *disk;
} disks[MAX_DISKS];
static unsigned ndisks, seed = 1, pause_every;
static struct faults faults;

static struct host *host;
static pthread_t thread;
static bool running;

/* What the server's threads ask of the host's. */
struct call {
	struct call *next;
	struct disk *disk;
	int op;
	char *buf;
	uint64_t sec;
	unsigned secs;
	unsigned parts; /* requests that are not done */
	int error;
	bool done;
};

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t answered = PTHREAD_COND_INITIALIZER;
static struct call *calls, **calls_end = &calls;
static bool stop;

/* --- the host's thread --- */

static void part_done(void *arg, int error)
{
	struct call *call = arg;
	if (error && !call->error)
		call->error = error;
	if (--call->parts)
		return;
	pthread_mutex_lock(&mutex);
	call->done = true;
	pthread_cond_broadcast(&answered);
	pthread_mutex_unlock(&mutex);
}

/* In requests of up to eleven segments, as a guest's ring has them. */
static void submit(struct call *call)
{
	unsigned secs = call->secs;
	uint64_t sec = call->sec;
	char *buf = call->buf;
	call->parts = 1;
	while (secs > 0) {
		struct segment segments[HOST_MAX_SEGMENTS];
		unsigned n = 0, sum = 0;
		while (n < HOST_MAX_SEGMENTS && secs > 0) {
			segments[n].buf = buf + sum * 512;
			segments[n].secs = secs < MAX_SECS ? secs : MAX_SECS;
			sum += segments[n].secs;
			secs -= segments[n++].secs;
		}
		call->parts++;
		disk_submit(call->disk, call->op, sec, segments, n, part_done, call);
		sec += sum;
		buf += (size_t)sum * 512;
	}
	part_done(call, 0);
}

static void take_calls(void)
{
	pthread_mutex_lock(&mutex);
	struct call *list = calls;
	calls = NULL;
	calls_end = &calls;
	pthread_mutex_unlock(&mutex);
	while (list) {
		struct call *next = list->next;
		submit(list);
		list = next;
	}
}

static void pause_now_and_then(unsigned *steps)
{
	if (!pause_every || ++*steps % pause_every)
		return;
	for (unsigned i = 0; i < ndisks; i++)
		disk_pause(disks[i].disk);
	for (unsigned i = 0; i < ndisks; i++)
		if (disk_resume(disks[i].disk, NULL))
			abort();
}

static void *run(void *arg)
{
	unsigned steps = 0;
	(void)arg;
	for (;;) {
		take_calls();
		host_step(host, 1);
		pause_now_and_then(&steps);
		pthread_mutex_lock(&mutex);
		const bool ends = stop && !calls;
		pthread_mutex_unlock(&mutex);
		if (ends)
			return NULL;
	}
}

/* --- requests --- */

static int ask(void *handle, int op, char *buf, uint32_t count, uint64_t offset)
{
	struct call call = {
		.disk = handle, .op = op, .buf = buf, .sec = offset / 512, .secs = count / 512};
	pthread_mutex_lock(&mutex);
	*calls_end = &call;
	calls_end = &call.next;
	pthread_mutex_unlock(&mutex);
	host_wake(host);
	pthread_mutex_lock(&mutex);
	while (!call.done)
		pthread_cond_wait(&answered, &mutex);
	pthread_mutex_unlock(&mutex);
	if (call.error == 0)
		return 0;
	nbdkit_error("%s: %s", op == TD_OP_WRITE ? "write" : "read", strerror(-call.error));
	errno = -call.error;
	return -1;
}

static int host_pread(void *handle, void *buf, uint32_t count, uint64_t offset, uint32_t flags)
{
	(void)flags;
	return ask(handle, TD_OP_READ, buf, count, offset);
}

static int host_pwrite(void *handle, const void *buf, uint32_t count, uint64_t offset, uint32_t flags)
{
	(void)flags;
	return ask(handle, TD_OP_WRITE, (char *)(uintptr_t)buf, count, offset);
}

/* --- configuration --- */

static int add_disk(const char *value)
{
	const char *colon = strchr(value, ':');
	if (!colon || ndisks == MAX_DISKS) {
		nbdkit_error("disk=%s: not SPEC:FILE, or too many", value);
		return -1;
	}
	disks[ndisks].spec = strndup(value, (size_t)(colon - value));
	disks[ndisks].file = nbdkit_absolute_path(colon + 1);
	ndisks++;
	return 0;
}

static int config(const char *key, const char *value)
{
	const struct {
		const char *name;
		unsigned *to;
	} numbers[] = {
		{"error-every", &faults.error_every}, {"busy-every", &faults.busy_every},
		{"again-every", &faults.again_every}, {"torn-every", &faults.torn_every},
		{"split", &faults.split}, {"shuffle", &faults.shuffle}, {"pause-every", &pause_every},
		{"seed", &seed},
	};
	for (size_t i = 0; i < sizeof(numbers) / sizeof(*numbers); i++)
		if (strcmp(key, numbers[i].name) == 0)
			return nbdkit_parse_unsigned(key, value, numbers[i].to);
	if (strcmp(key, "error-from") == 0)
		return nbdkit_parse_uint64_t(key, value, &faults.from);
	if (strcmp(key, "error-to") == 0)
		return nbdkit_parse_uint64_t(key, value, &faults.to);
	if (strcmp(key, "rings") == 0)
		return setenv("TAPWIRE_RING_DIR", value, 1);
	if (strcmp(key, "disk") == 0)
		return add_disk(value);
	nbdkit_error("unknown parameter %s", key);
	return -1;
}

/* --- start and end --- */

/* Threads and aio do not survive a fork. */
static int after_fork(void)
{
	host = host_create(seed);
	for (unsigned i = 0; i < ndisks; i++) {
		disks[i].disk = disk_create(
			host, *disks[i].spec ? disks[i].spec : NULL, disks[i].file, 0);
		if (!disks[i].disk) {
			nbdkit_error("%s: %m", disks[i].file);
			return -1;
		}
		*disk_faults(disks[i].disk) = faults;
	}
	running = pthread_create(&thread, NULL, run, NULL) == 0;
	return running ? 0 : -1;
}

static void cleanup(void)
{
	if (!running)
		return;
	pthread_mutex_lock(&mutex);
	stop = true;
	pthread_mutex_unlock(&mutex);
	host_wake(host);
	pthread_join(thread, NULL);
	host_destroy(host);
}

static void *open_disk(int readonly)
{
	const char *name = nbdkit_export_name();
	(void)readonly;
	for (unsigned i = 0; i < ndisks; i++)
		if (!name || !*name || (strncmp(disks[i].spec, name, strlen(name)) == 0 &&
					       strchr(",", disks[i].spec[strlen(name)])))
			return disks[i].disk;
	nbdkit_error("no export %s", name);
	return NULL;
}

static int64_t get_size(void *handle)
{
	return (int64_t)disk_sectors(handle) * 512;
}

static int block_size(void *handle, uint32_t *minimum, uint32_t *preferred, uint32_t *maximum)
{
	(void)handle;
	*minimum = 512;
	*preferred = 4096;
	*maximum = 32 << 20;
	return 0;
}

static struct nbdkit_plugin plugin = {
	.name = "tapdiskhost",
	.config = config,
	.after_fork = after_fork,
	.cleanup = cleanup,
	.open = open_disk,
	.get_size = get_size,
	.block_size = block_size,
	.pread = host_pread,
	.pwrite = host_pwrite,
	.errno_is_preserved = 1,
};

struct nbdkit_plugin *plugin_init(void); /* nbdkit's macro declares none */
NBDKIT_REGISTER_PLUGIN(plugin)
