/* SPDX-License-Identifier: BSD-3-Clause */
#include "capture.h"
#include "range-lock.h"
#include "ring.h"
#include "trace.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define GAP_POLL_NS 20000000L

_Static_assert(RANGE_LOCK_SLOTS <= TW_RING_INTENTS, "a slot of the range lock is an intent");

struct capture {
	capture_report_fn *report;
	char *trace_path;
	struct range_lock ranges;

	/* One lock for ring and trace: they have the same order. */
	pthread_mutex_t mutex;
	struct tw_ring *ring;
	struct tw_trace_writer *trace;
	uint64_t trace_sequence;

	/* Under the mutex: */
	pthread_cond_t poller_wake;
	bool gap_open;
	bool stop;

	pthread_t poller;
	bool poller_runs;
};

/* --- the trace --- */

static uint64_t now_ns(void)
{
	struct timespec ts;
	clock_gettime(CLOCK_REALTIME, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

/* Said once; the guest does not hear of it. */
static void give_trace_up(struct capture *c, int error)
{
	c->report("record=%s: the trace ends here, serving goes on: %s", c->trace_path,
		strerror(-error));
	(void)tw_trace_writer_destroy(c->trace);
	c->trace = NULL;
}

static int record(
	struct capture *c, uint32_t flags, uint64_t sector, uint64_t nsectors, const char *payload)
{
	const uint64_t time_ns = now_ns();
	do {
		const uint64_t n =
			nsectors < TW_TRACE_MAX_SECTORS ? nsectors : TW_TRACE_MAX_SECTORS;
		const struct tw_record rec = {
			.sequence = ++c->trace_sequence,
			.time_ns = time_ns,
			.sector = sector,
			.nsectors = (uint32_t)n,
			.flags = flags | (payload ? TW_RECORD_PAYLOAD : 0),
			.payload = payload,
		};
		int ret = tw_trace_write(c->trace, &rec);
		if (ret)
			return ret;
		sector += n;
		nsectors -= n;
		payload = payload ? payload + n * TW_SECTOR_SIZE : NULL;
	} while (nsectors > 0);
	return 0;
}

/* --- requests --- */

struct capture_hold capture_begin(struct capture *c, uint64_t offset, uint64_t count)
{
	struct capture_hold hold;
	hold.sector = offset / TW_SECTOR_SIZE;
	hold.nsectors = (offset + count + TW_SECTOR_SIZE - 1) / TW_SECTOR_SIZE - hold.sector;
	hold.slot = 0;
	if (!capture_wanted(c))
		return hold;
	hold.slot = range_lock(&c->ranges, hold.sector, hold.nsectors);
	if (c->ring)
		tw_ring_intent(c->ring, hold.slot, hold.sector, hold.nsectors);
	return hold;
}

void capture_end(struct capture *c, const struct capture_hold *hold)
{
	const int saved = errno;
	if (!capture_wanted(c))
		return;
	if (c->ring)
		tw_ring_intent(c->ring, hold->slot, 0, 0);
	range_unlock(&c->ranges, hold->slot);
	errno = saved;
}

/* What does not change once the server runs: a trace that was given up still counts. */
bool capture_wanted(const struct capture *c)
{
	return c->ring || c->trace_path;
}

/* A range alone would pass for content that the consumer did not want. */
static int publish(struct tw_ring *ring, uint32_t flags, uint64_t sector, uint64_t nsectors,
	const void *payload)
{
	const uint32_t needs_none = TW_RECORD_ZEROES | TW_RECORD_DISCARD | TW_RECORD_FLUSH;
	if (!payload && !(flags & needs_none))
		return tw_ring_miss(ring, sector, nsectors);
	return tw_ring_publish(ring, flags, sector, nsectors, payload);
}

void capture_publish(struct capture *c, uint32_t flags, uint64_t sector, uint64_t nsectors,
	const void *payload, bool sync)
{
	if (!capture_wanted(c))
		return;
	pthread_mutex_lock(&c->mutex);
	if (c->ring && publish(c->ring, flags, sector, nsectors, payload) && !c->gap_open) {
		c->gap_open = true;
		pthread_cond_signal(&c->poller_wake);
	}
	if (c->trace) {
		int ret = record(c, flags, sector, nsectors, payload);
		if (ret == 0 && sync)
			ret = tw_trace_flush(c->trace);
		if (ret)
			give_trace_up(c, ret);
	}
	pthread_mutex_unlock(&c->mutex);
}

/* --- the quiet guest --- */

static struct timespec gap_deadline(void)
{
	struct timespec ts;
	clock_gettime(CLOCK_REALTIME, &ts);
	ts.tv_nsec += GAP_POLL_NS;
	if (ts.tv_nsec >= 1000000000L) {
		ts.tv_nsec -= 1000000000L;
		ts.tv_sec++;
	}
	return ts;
}

static void *poll_gap(void *arg)
{
	struct capture *c = arg;
	pthread_mutex_lock(&c->mutex);
	while (!c->stop) {
		if (!c->gap_open) {
			pthread_cond_wait(&c->poller_wake, &c->mutex);
			continue;
		}
		const struct timespec until = gap_deadline();
		(void)pthread_cond_timedwait(&c->poller_wake, &c->mutex, &until);
		c->gap_open = tw_ring_poll(c->ring);
	}
	pthread_mutex_unlock(&c->mutex);
	return NULL;
}

int capture_start(struct capture *c)
{
	if (!c->ring)
		return 0;
	c->gap_open = tw_ring_poll(c->ring);
	int error = pthread_create(&c->poller, NULL, poll_gap, c);
	if (error) {
		c->report("cannot start a thread: %s", strerror(error));
		return -1;
	}
	c->poller_runs = true;
	return 0;
}

void capture_stop(struct capture *c)
{
	if (!c->poller_runs)
		return;
	pthread_mutex_lock(&c->mutex);
	c->stop = true;
	pthread_cond_signal(&c->poller_wake);
	pthread_mutex_unlock(&c->mutex);
	pthread_join(c->poller, NULL);
	c->poller_runs = false;
}

/* --- start and end --- */

static int open_ring(struct capture *c, const char *path, uint64_t ring_bytes, uint64_t disk_bytes)
{
	int ret = tw_ring_create(path, disk_bytes, ring_bytes, &c->ring);
	if (ret == -EBUSY)
		c->report("ring=%s: another capture point is using this ring", path);
	else if (ret == -EEXIST)
		c->report("ring=%s: a file that is no ring has this name; it was left alone", path);
	else if (ret == -ENOSPC)
		c->report("ring=%s: no room for a ring of %" PRIu64 " bytes and its dirty map",
			path, ring_bytes);
	else if (ret)
		c->report("ring=%s: cannot create the ring: %s", path, strerror(-ret));
	return ret ? -1 : 0;
}

/* The path may be a typo for an image: only an empty file or an older trace is overwritten. */
static bool may_overwrite(const char *path)
{
	char magic[sizeof(TW_TRACE_MAGIC) - 1];
	struct stat st;
	if (stat(path, &st) < 0 || (S_ISREG(st.st_mode) && st.st_size == 0))
		return true;
	if (!S_ISREG(st.st_mode))
		return !S_ISBLK(st.st_mode);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return true; /* creating it says why not */
	ssize_t n = read(fd, magic, sizeof(magic));
	close(fd);
	return n == sizeof(magic) && memcmp(magic, TW_TRACE_MAGIC, sizeof(magic)) == 0;
}

static int open_trace(struct capture *c, bool append, uint64_t disk_bytes)
{
	const char *path = c->trace_path;
	if (!may_overwrite(path)) {
		c->report("record=%s: a file that is no trace has this name; it was left alone",
			path);
		return -1;
	}
	int ret = append ? tw_trace_writer_append(path, disk_bytes, &c->trace, &c->trace_sequence)
			 : tw_trace_writer_create(path, disk_bytes, &c->trace);
	if (ret == -EINVAL)
		c->report("record=%s: is the trace of a disk of another size", path);
	else if (ret == -EBADMSG || ret == -ERANGE)
		c->report("record=%s: the trace is damaged; cannot append to it", path);
	else if (ret)
		c->report("record=%s: cannot create the trace: %s", path, strerror(-ret));
	return ret ? -1 : 0;
}

static int open_outputs(struct capture *c, const char *ring_path, uint64_t ring_bytes, bool append,
	uint64_t disk_bytes)
{
	if (ring_path && open_ring(c, ring_path, ring_bytes, disk_bytes) < 0)
		return -1;
	if (c->trace_path && open_trace(c, append, disk_bytes) < 0)
		return -1;
	return 0;
}

int capture_create(const char *ring_path, uint64_t ring_bytes, const char *trace_path, bool append,
	uint64_t disk_bytes, capture_report_fn *report, struct capture **out)
{
	struct capture *c = calloc(1, sizeof(*c));
	if (c && trace_path)
		c->trace_path = strdup(trace_path);
	if (!c || (trace_path && !c->trace_path)) {
		free(c);
		report("out of memory");
		return -1;
	}
	c->report = report;
	range_lock_init(&c->ranges);
	pthread_mutex_init(&c->mutex, NULL);
	pthread_cond_init(&c->poller_wake, NULL);
	if (open_outputs(c, ring_path, ring_bytes, append, disk_bytes) < 0) {
		capture_destroy(c);
		return -1;
	}
	*out = c;
	return 0;
}

void capture_destroy(struct capture *c)
{
	if (!c)
		return;
	capture_stop(c);
	int ret = tw_trace_writer_destroy(c->trace);
	if (ret)
		c->report("record=%s: the trace is incomplete: %s", c->trace_path, strerror(-ret));
	tw_ring_destroy(c->ring);
	range_lock_deinit(&c->ranges);
	pthread_cond_destroy(&c->poller_wake);
	pthread_mutex_destroy(&c->mutex);
	free(c->trace_path);
	free(c);
}
