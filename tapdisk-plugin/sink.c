/* SPDX-License-Identifier: BSD-3-Clause */
#include "sink.h"
#include "ring.h"
#include "sink-progress.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

/* A connection that was closed has gone after so long. */
#define LEAVE_TRIES 50
#define LEAVE_NS 10000000L

/* A mirror's image may be behind its ring, so no content can be looked up there: all is captured, and
 * the interest map does not move with the ring. The ring goes last: it is found first. */
static const char *const suffixes[] = {".interest", ".bell", ".cursor", ""};
#define NSUFFIXES (sizeof(suffixes) / sizeof(suffixes[0]))
#define FIRST_MOVED 1

struct sink {
	capture_report_fn *report;
	char *ring_path;
	char *next_path; /* where the next session's ring is made */
	uint64_t ring_bytes;
	uint64_t disk_bytes;
	struct sink_progress *progress;

	pthread_mutex_t mutex; /* of what a connection's coming and going changes */
	bool open;
	struct capture *next;    /* ready, and in no session yet */
	struct capture *session; /* of the connection; requests come between open and close only */

	pthread_t heart;
	pthread_cond_t heart_wake;
	bool heart_runs;
	bool stop;
};

static void add(_Atomic uint64_t *counter, uint64_t n)
{
	atomic_fetch_add_explicit(counter, n, memory_order_relaxed);
}

/* --- rings --- */

static int path_of(char *out, const char *path, const char *suffix)
{
	int n = snprintf(out, PATH_MAX, "%s%s", path, suffix);
	return n < 0 || n >= PATH_MAX ? -1 : 0;
}

static void remove_next(const struct sink *sink)
{
	char path[PATH_MAX];
	for (size_t i = 0; i < NSUFFIXES; i++)
		if (path_of(path, sink->next_path, suffixes[i]) == 0)
			unlink(path);
}

/* Never taken over from an earlier sink: it is to have an id of its own. */
static int prepare_next(struct sink *sink)
{
	if (sink->next)
		return 0;
	remove_next(sink);
	return capture_create(sink->next_path, sink->ring_bytes, NULL, false, sink->disk_bytes,
		sink->report, &sink->next);
}

static int give_names(const struct sink *sink)
{
	char from[PATH_MAX], to[PATH_MAX];
	if (path_of(from, sink->next_path, suffixes[0]) == 0)
		unlink(from);
	for (size_t i = FIRST_MOVED; i < NSUFFIXES; i++) {
		if (path_of(from, sink->next_path, suffixes[i]) < 0 ||
			path_of(to, sink->ring_path, suffixes[i]) < 0 || rename(from, to) < 0) {
			sink->report("sink=%s: %s", sink->ring_path, strerror(errno));
			return -1;
		}
	}
	return 0;
}

/* --- connections --- */

/* A page that has to come back from a disk first would keep a guest waiting. Not what is mapped
 * later: where little may be locked, that would fail. */
static void keep_in_memory(void)
{
	(void)mlockall(MCL_CURRENT | MCL_ONFAULT);
}

static int wait_for_leave(struct sink *sink)
{
	for (int i = 0; sink->open && i < LEAVE_TRIES; i++) {
		pthread_mutex_unlock(&sink->mutex);
		nanosleep(&(struct timespec){.tv_nsec = LEAVE_NS}, NULL);
		pthread_mutex_lock(&sink->mutex);
	}
	if (sink->open)
		sink->report("sink=%s: has a connection already", sink->ring_path);
	return sink->open ? -1 : 0;
}

static int begin_session(struct sink *sink)
{
	if (wait_for_leave(sink) < 0 || prepare_next(sink) < 0 || capture_start(sink->next) < 0 ||
		give_names(sink) < 0)
		return -1;
	sink->session = sink->next;
	sink->next = NULL;
	sink->open = true;
	keep_in_memory();
	add(&sink->progress->sessions, 1);
	return 0;
}

int sink_open(struct sink *sink)
{
	pthread_mutex_lock(&sink->mutex);
	int ret = begin_session(sink);
	pthread_mutex_unlock(&sink->mutex);
	return ret;
}

void sink_close(struct sink *sink)
{
	pthread_mutex_lock(&sink->mutex);
	struct capture *old = sink->session;
	sink->session = NULL;
	pthread_mutex_unlock(&sink->mutex);
	capture_destroy(old);

	pthread_mutex_lock(&sink->mutex);
	sink->open = false;
	add(&sink->progress->closed, 1);
	(void)prepare_next(sink); /* else the next connection tries, and says why not */
	pthread_mutex_unlock(&sink->mutex);
}

/* --- requests --- */

static int refuse(struct sink *sink, _Atomic uint64_t *counter, int error)
{
	add(counter, 1);
	add(&sink->progress->begun, 1);
	add(&sink->progress->finished, 1);
	return error;
}

int sink_write(
	struct sink *sink, uint32_t flags, uint64_t offset, uint32_t count, const void *payload)
{
	struct sink_progress *progress = sink->progress;
	/* There is no image to complete a sector from. tapdisk writes whole ones. */
	if ((offset | count) % TW_SECTOR_SIZE)
		return refuse(sink, &progress->refused, EINVAL);
	add(&progress->begun, 1);
	capture_publish(sink->session, flags, offset / TW_SECTOR_SIZE, count / TW_SECTOR_SIZE,
		payload, false);
	add(&progress->writes, 1);
	add(&progress->written, count);
	add(&progress->finished, 1);
	return 0;
}

int sink_read(struct sink *sink)
{
	return refuse(sink, &sink->progress->reads, EIO);
}

int sink_flush(struct sink *sink)
{
	add(&sink->progress->begun, 1);
	capture_publish(sink->session, TW_RECORD_FLUSH, 0, 0, NULL, true);
	add(&sink->progress->finished, 1);
	return 0;
}

/* --- the heart --- */

static struct timespec next_beat(void)
{
	struct timespec ts;
	clock_gettime(CLOCK_MONOTONIC, &ts);
	ts.tv_nsec += SINK_BEAT_MS * 1000000L;
	if (ts.tv_nsec >= 1000000000L) {
		ts.tv_nsec -= 1000000000L;
		ts.tv_sec++;
	}
	return ts;
}

static void *beat(void *arg)
{
	struct sink *sink = arg;
	pthread_mutex_lock(&sink->mutex);
	while (!sink->stop) {
		const struct timespec until = next_beat();
		add(&sink->progress->beats, 1);
		(void)pthread_cond_timedwait(&sink->heart_wake, &sink->mutex, &until);
	}
	pthread_mutex_unlock(&sink->mutex);
	return NULL;
}

int sink_start(struct sink *sink)
{
	/* Who started it watches over it: a sink that nobody can kill is not to outlive that. A
	 * sink in the background is its own affair. */
	if (getppid() != 1)
		prctl(PR_SET_PDEATHSIG, SIGKILL);
	keep_in_memory();
	int error = pthread_create(&sink->heart, NULL, beat, sink);
	if (error) {
		sink->report("cannot start a thread: %s", strerror(error));
		return -1;
	}
	sink->heart_runs = true;
	return 0;
}

void sink_stop(struct sink *sink)
{
	if (!sink->heart_runs)
		return;
	pthread_mutex_lock(&sink->mutex);
	sink->stop = true;
	pthread_cond_signal(&sink->heart_wake);
	pthread_mutex_unlock(&sink->mutex);
	pthread_join(sink->heart, NULL);
	sink->heart_runs = false;
}

/* --- start and end --- */

/* A new file each time: whoever still looks at the old one sees that sink stand still. */
static int make_progress(struct sink *sink)
{
	char path[PATH_MAX], tmp[PATH_MAX];
	if (path_of(path, sink->ring_path, ".progress") < 0 || path_of(tmp, path, ".XXXXXX") < 0) {
		errno = ENAMETOOLONG;
		return -1;
	}
	int fd = mkostemp(tmp, O_CLOEXEC);
	if (fd < 0)
		return -1;
	int error = posix_fallocate(fd, 0, SINK_PROGRESS_BYTES);
	void *page = MAP_FAILED;
	if (!error) {
		page = mmap(NULL, SINK_PROGRESS_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
		error = page == MAP_FAILED ? errno : 0;
	}
	close(fd);
	if (!error) {
		sink->progress = page;
		sink->progress->magic = SINK_PROGRESS_MAGIC;
		error = rename(tmp, path) < 0 ? errno : 0;
	}
	if (error)
		unlink(tmp);
	errno = error;
	return error ? -1 : 0;
}

static int check_ring(const struct sink *sink)
{
	int ret = tw_ring_vacant(sink->ring_path);
	if (ret == 0)
		ret = tw_ring_vacant(sink->next_path);
	if (ret == -EBUSY)
		sink->report("sink=%s: another capture point is using this ring", sink->ring_path);
	else if (ret == -EEXIST)
		sink->report("sink=%s: a file that is no ring has this name; it was left alone",
			sink->ring_path);
	else if (ret)
		sink->report("sink=%s: %s", sink->ring_path, strerror(-ret));
	return ret ? -1 : 0;
}

static int init(struct sink *sink)
{
	if (check_ring(sink) < 0)
		return -1;
	if (make_progress(sink) < 0) {
		sink->report("sink=%s.progress: %s", sink->ring_path, strerror(errno));
		return -1;
	}
	return prepare_next(sink);
}

int sink_create(const char *ring_path, uint64_t ring_bytes, uint64_t disk_bytes,
	capture_report_fn *report, struct sink **out)
{
	struct sink *sink = calloc(1, sizeof(*sink));
	if (sink)
		sink->ring_path = strdup(ring_path);
	if (!sink || !sink->ring_path || asprintf(&sink->next_path, "%s.next", ring_path) < 0) {
		report("out of memory");
		if (sink)
			free(sink->ring_path);
		free(sink);
		return -1;
	}
	sink->report = report;
	sink->ring_bytes = ring_bytes;
	sink->disk_bytes = disk_bytes;
	pthread_mutex_init(&sink->mutex, NULL);
	pthread_condattr_t monotonic;
	pthread_condattr_init(&monotonic);
	pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
	pthread_cond_init(&sink->heart_wake, &monotonic);
	pthread_condattr_destroy(&monotonic);
	if (init(sink) < 0) {
		sink_destroy(sink);
		return -1;
	}
	*out = sink;
	return 0;
}

void sink_destroy(struct sink *sink)
{
	if (!sink)
		return;
	sink_stop(sink);
	capture_destroy(sink->session);
	if (sink->next) {
		capture_destroy(sink->next);
		remove_next(sink);
	}
	if (sink->progress)
		munmap(sink->progress, SINK_PROGRESS_BYTES);
	pthread_cond_destroy(&sink->heart_wake);
	pthread_mutex_destroy(&sink->mutex);
	free(sink->ring_path);
	free(sink->next_path);
	free(sink);
}
