/* SPDX-License-Identifier: BSD-3-Clause */
/* The loop, and what tapdisk offers its drivers. */
#include "inside.h"

#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#define AIO_DEPTH 512
#define HURRY 10 /* a second of tapdisk's timers is so manieth of a second here */

/* Timers have no owner in tapdisk's interface either; one host at a time. */
static struct host *the_host;

int64_t host_now_ns(void)
{
	struct timespec ts;
	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000000000ll + ts.tv_nsec;
}

struct host *host_create(unsigned seed)
{
	struct host *host = calloc(1, sizeof(*host));
	if (!host || io_setup(AIO_DEPTH, &host->aio) < 0)
		abort();
	host->aio_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	host->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	host->random = seed * 2654435761u + 1;
	the_host = host;
	return host;
}

void host_destroy(struct host *host)
{
	while (host->disks)
		disk_destroy(host->disks);
	for (unsigned i = 0; i < MAX_TIMERS; i++)
		if (host->timers[i].cb)
			abort(); /* a driver has left it behind */
	io_destroy(host->aio);
	close(host->aio_fd);
	close(host->wake_fd);
	free(host);
	the_host = NULL;
}

unsigned host_random(struct host *host, unsigned n)
{
	host->random ^= host->random << 13;
	host->random ^= host->random >> 7;
	host->random ^= host->random << 17;
	return (unsigned)(host->random >> 32) % n;
}

const char *host_said(const struct host *host, unsigned *count)
{
	*count = host->said_count;
	return host->said;
}

/* --- the loop --- */

void host_wake(struct host *host)
{
	uint64_t one = 1;
	ssize_t n = write(host->wake_fd, &one, sizeof(one));
	(void)n;
}

/* Milliseconds until a timer is due; -1: none. */
static int next_timer(const struct host *host)
{
	int64_t next = -1;
	const int64_t now = host_now_ns();
	for (unsigned i = 0; i < MAX_TIMERS; i++) {
		const struct timer *t = &host->timers[i];
		if (!t->cb || t->interval_ns < 0)
			continue;
		const int64_t left = t->due_ns > now ? t->due_ns - now : 0;
		if (next < 0 || left < next)
			next = left;
	}
	return next < 0 ? -1 : (int)(next / 1000000) + (next > 0);
}

static void run_timers(struct host *host)
{
	const int64_t now = host_now_ns();
	for (unsigned i = 0; i < MAX_TIMERS; i++) {
		struct timer *t = &host->timers[i];
		if (!t->cb || t->interval_ns < 0 || t->due_ns > now)
			continue;
		t->due_ns = now + t->interval_ns;
		t->cb((event_id_t)i + 1, SCHEDULER_POLL_TIMEOUT, t->arg);
	}
}

static void take_finished(struct host *host)
{
	struct io_event events[64];
	struct timespec none = {0};
	int n;
	while ((n = io_getevents(host->aio, 0, 64, events, &none)) > 0)
		for (int i = 0; i < n; i++)
			image_finished(events[i].data, events[i].obj, (long)events[i].res);
}

static bool work(struct host *host)
{
	bool worked = false;
	struct disk *next;
	take_finished(host);
	run_timers(host);
	for (struct disk *disk = host->disks; disk; disk = next) {
		next = disk->next;
		worked |= image_step(disk);
		worked |= disk_step(disk);
	}
	return worked;
}

void host_step(struct host *host, int wait_ms)
{
	uint64_t count;
	if (work(host) || wait_ms == 0)
		return;
	const int timer = next_timer(host);
	struct pollfd fds[2] = {{host->aio_fd, POLLIN, 0}, {host->wake_fd, POLLIN, 0}};
	poll(fds, 2, timer >= 0 && timer < wait_ms ? timer : wait_ms);
	for (int i = 0; i < 2; i++)
		while (read(fds[i].fd, &count, sizeof(count)) > 0)
			;
	(void)work(host);
}

/* --- tapdisk's interface --- */

event_id_t tapdisk_server_register_event(
	char mode, int fd, struct timeval interval, event_cb_t cb, void *arg)
{
	(void)fd;
	if (mode != SCHEDULER_POLL_TIMEOUT)
		abort();
	for (unsigned i = 0; i < MAX_TIMERS; i++) {
		if (the_host->timers[i].cb)
			continue;
		the_host->timers[i].cb = cb;
		the_host->timers[i].arg = arg;
		(void)tapdisk_server_event_set_timeout((event_id_t)i + 1, interval);
		return (event_id_t)i + 1;
	}
	return -ENOMEM;
}

int tapdisk_server_event_set_timeout(event_id_t id, struct timeval interval)
{
	struct timer *t = &the_host->timers[id - 1];
	t->interval_ns = interval.tv_sec < 0 ?
		-1 : (interval.tv_sec * 1000000000ll + interval.tv_usec * 1000) / HURRY;
	t->due_ns = host_now_ns() + t->interval_ns;
	return 0;
}

void tapdisk_server_unregister_event(event_id_t id)
{
	the_host->timers[id - 1].cb = NULL;
}

void tlog_syslog(int level, const char *fmt, ...)
{
	va_list args;
	(void)level;
	va_start(args, fmt);
	vsnprintf(the_host->said, sizeof(the_host->said), fmt, args);
	va_end(args);
	the_host->said_count++;
}
