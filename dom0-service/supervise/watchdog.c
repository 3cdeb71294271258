/* SPDX-License-Identifier: BSD-3-Clause */
#include "supervise/watchdog.h"
#include "base/scope.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* The bound is divided into so many looks. */
#define LOOKS 10

struct tw_watchdog {
	unsigned bound_ms;
	unsigned look_ms;
	pthread_t thread;
	pthread_mutex_t mutex;
	pthread_cond_t wake;
	bool stop;

	/* Under the mutex: */
	int pidfd; /* -1: nothing is watched */
	const struct sink_progress *page;
	uint64_t beats;    /* as they were last seen to change, */
	uint64_t finished; /* and for how long they have not */
	unsigned still_ms;
	unsigned pending_ms;
	enum tw_watchdog_verdict verdict;
};

static uint64_t load(const _Atomic uint64_t *counter)
{
	return atomic_load_explicit(counter, memory_order_acquire);
}

/* --- looking --- */

static void kill_it(struct tw_watchdog *dog, enum tw_watchdog_verdict why)
{
	dog->verdict = why;
	(void)syscall(SYS_pidfd_send_signal, dog->pidfd, SIGKILL, NULL, 0);
}

/* ms: since the last look, as far as this thread was awake. */
static void look(struct tw_watchdog *dog, unsigned ms)
{
	const uint64_t beats = load(&dog->page->beats);
	/* In this order: a request that ends in between is not taken for one that is pending. */
	const uint64_t begun = load(&dog->page->begun);
	const uint64_t finished = load(&dog->page->finished);
	dog->still_ms = beats == dog->beats ? dog->still_ms + ms : 0;
	dog->pending_ms =
		finished == dog->finished && begun > finished ? dog->pending_ms + ms : 0;
	dog->beats = beats;
	dog->finished = finished;
	if (dog->still_ms >= dog->bound_ms)
		kill_it(dog, TW_WATCHDOG_NO_BEAT);
	else if (dog->pending_ms >= dog->bound_ms)
		kill_it(dog, TW_WATCHDOG_PENDING);
}

static uint64_t now_ms(void)
{
	struct timespec ts;
	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

static struct timespec at_ms(uint64_t ms)
{
	return (struct timespec){ (time_t)(ms / 1000), (long)(ms % 1000) * 1000000L };
}

static void *watch(void *arg)
{
	struct tw_watchdog *dog = arg;
	uint64_t last = now_ms();
	pthread_mutex_lock(&dog->mutex);
	while (!dog->stop) {
		const struct timespec until = at_ms(last + dog->look_ms);
		if (dog->pidfd < 0 || dog->verdict != TW_WATCHDOG_WELL)
			pthread_cond_wait(&dog->wake, &dog->mutex);
		else
			pthread_cond_timedwait(&dog->wake, &dog->mutex, &until);
		const uint64_t now = now_ms();
		uint64_t ms = now - last;
		if (ms < dog->look_ms)
			continue; /* woken for something new */
		last = now;
		/* We may have been stopped with it. */
		if (ms > 2 * dog->look_ms)
			ms = 2 * dog->look_ms;
		if (dog->pidfd >= 0 && dog->verdict == TW_WATCHDOG_WELL)
			look(dog, (unsigned)ms);
	}
	pthread_mutex_unlock(&dog->mutex);
	return NULL;
}

/* --- start and end --- */

/* Before everything that is not real-time, where that is allowed: it needs next to nothing. */
static int start_thread(struct tw_watchdog *dog)
{
	const struct sched_param first = { .sched_priority = 1 };
	int error = pthread_create(&dog->thread, NULL, watch, dog);
	if (error == 0)
		(void)pthread_setschedparam(dog->thread, SCHED_FIFO, &first);
	return error;
}

/* Who holds the mutex is as urgent as who waits for it. */
static void init_sync(struct tw_watchdog *dog)
{
	pthread_mutexattr_t inherit;
	pthread_mutexattr_init(&inherit);
	(void)pthread_mutexattr_setprotocol(&inherit, PTHREAD_PRIO_INHERIT);
	pthread_mutex_init(&dog->mutex, &inherit);
	pthread_mutexattr_destroy(&inherit);
	pthread_condattr_t monotonic;
	pthread_condattr_init(&monotonic);
	pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
	pthread_cond_init(&dog->wake, &monotonic);
	pthread_condattr_destroy(&monotonic);
}

struct tw_error *tw_watchdog_create(unsigned bound_ms, struct tw_watchdog **out)
{
	struct tw_watchdog *dog = calloc(1, sizeof(*dog));
	if (!dog)
		return tw_error_nomem();
	dog->bound_ms = bound_ms < TW_WATCHDOG_MIN_MS ? TW_WATCHDOG_MIN_MS : bound_ms;
	dog->look_ms = dog->bound_ms / LOOKS;
	dog->pidfd = -1;
	init_sync(dog);
	int error = start_thread(dog);
	if (!error) {
		*out = dog;
		return NULL;
	}
	pthread_cond_destroy(&dog->wake);
	pthread_mutex_destroy(&dog->mutex);
	free(dog);
	return tw_error_errno(error, "the watchdog's thread");
}

void tw_watchdog_destroy(struct tw_watchdog *dog)
{
	if (!dog)
		return;
	(void)tw_watchdog_unwatch(dog);
	pthread_mutex_lock(&dog->mutex);
	dog->stop = true;
	pthread_cond_signal(&dog->wake);
	pthread_mutex_unlock(&dog->mutex);
	pthread_join(dog->thread, NULL);
	pthread_cond_destroy(&dog->wake);
	pthread_mutex_destroy(&dog->mutex);
	free(dog);
}

static struct tw_error *map_page(const char *path, const struct sink_progress **out)
{
	TW_AUTO_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	struct stat st;
	if (fd < 0 || fstat(fd, &st) < 0)
		return tw_error_errno(errno, "%s", path);
	if (!S_ISREG(st.st_mode) || st.st_size != SINK_PROGRESS_BYTES)
		return tw_error_create(TW_BAD_DATA, "%s: not a sink's page", path);
	void *page = mmap(NULL, SINK_PROGRESS_BYTES, PROT_READ, MAP_SHARED, fd, 0);
	if (page == MAP_FAILED)
		return tw_error_errno(errno, "%s", path);
	*out = page;
	if ((*out)->magic == SINK_PROGRESS_MAGIC)
		return NULL;
	munmap(page, SINK_PROGRESS_BYTES);
	return tw_error_create(TW_BAD_DATA, "%s: not a sink's page", path);
}

struct tw_error *tw_watchdog_watch(struct tw_watchdog *dog, int pid, const char *path)
{
	const struct sink_progress *page;
	(void)tw_watchdog_unwatch(dog);
	TW_TRY(map_page(path, &page));
	int fd = (int)syscall(SYS_pidfd_open, pid, 0);
	if (fd < 0) {
		struct tw_error *err = tw_error_errno(errno, "process %d", pid);
		munmap((void *)page, SINK_PROGRESS_BYTES);
		return err;
	}
	pthread_mutex_lock(&dog->mutex);
	dog->page = page;
	dog->pidfd = fd;
	dog->beats = load(&page->beats);
	dog->finished = load(&page->finished);
	dog->still_ms = dog->pending_ms = 0;
	dog->verdict = TW_WATCHDOG_WELL;
	pthread_cond_signal(&dog->wake);
	pthread_mutex_unlock(&dog->mutex);
	return NULL;
}

enum tw_watchdog_verdict tw_watchdog_unwatch(struct tw_watchdog *dog)
{
	pthread_mutex_lock(&dog->mutex);
	const struct sink_progress *page = dog->page;
	const int fd = dog->pidfd;
	const enum tw_watchdog_verdict verdict = dog->verdict;
	dog->page = NULL;
	dog->pidfd = -1;
	dog->verdict = TW_WATCHDOG_WELL;
	pthread_mutex_unlock(&dog->mutex);
	if (page)
		munmap((void *)page, SINK_PROGRESS_BYTES);
	if (fd >= 0)
		close(fd);
	return verdict;
}

bool tw_watchdog_counts(struct tw_watchdog *dog, struct tw_sink_counts *out)
{
	pthread_mutex_lock(&dog->mutex);
	const struct sink_progress *page = dog->page;
	if (page)
		*out = (struct tw_sink_counts){
			.sessions = load(&page->sessions),
			.closed = load(&page->closed),
			.writes = load(&page->writes),
			.written = load(&page->written),
			.reads = load(&page->reads),
			.refused = load(&page->refused),
		};
	pthread_mutex_unlock(&dog->mutex);
	return page != NULL;
}
