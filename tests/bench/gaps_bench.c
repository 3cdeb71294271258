/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * How long a guest's writes of 4 KiB take, above a chain of the tapdisk driver and an image in
 * memory.
 *
 *   gaps_bench SPEC|- GIB WRITES DEPTH RATE|busy|cpu
 *
 * SPEC: the driver's ("bench,ring-size=1M"), its ring in TAPWIRE_RING_DIR; -: without it. GIB: how
 * large the disk is. RATE: one at a time, so many a second: the time between two is slept through,
 * and the driver's timer runs in it, as in tapdisk; a write that came due while the timer ran
 * counts from then. busy: so many are always in flight. cpu: the same, but what is measured is the
 * processor time within the driver, on the way down and up, which other load does not change.
 *
 * Prints "begun"; in the end "p50 p99 p99.9 max" in nanoseconds, and lines "NS COUNT": how many
 * took how long, rounded down to a quarter of a power of two.
 */
#include "common/driver_host.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>

#define SECTORS 8u
#define MAX_GIB (16u << 10)
#define MAX_WRITES 10000000u
#define MAX_RATE 1000000u

static uint32_t *took;
static unsigned long issued, done, writes;
static bool by_cpu;
static uint64_t started[HOST_MAX_DEPTH]; /* by slot; by_cpu: spent on the way down */

static void note(uint64_t ns)
{
	took[done++] = ns < UINT32_MAX ? (uint32_t)ns : UINT32_MAX;
}

void host_below(unsigned slot)
{
	(void)slot;
}

void host_above(unsigned slot)
{
	if (!by_cpu)
		note(host_now_ns() - started[slot]);
}

static uint64_t cpu_ns(void)
{
	struct timespec ts;
	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static void issue(unsigned slot, bool poll)
{
	const td_request_t treq = host_request(issued++, slot);
	const uint64_t cpu = by_cpu ? cpu_ns() : 0;
	started[slot] = host_now_ns();
	if (poll)
		(void)host_poll(started[slot]);
	host_issue(treq);
	if (by_cpu)
		started[slot] = cpu_ns() - cpu;
}

static void saturated(unsigned depth)
{
	for (unsigned slot = 0; slot < depth; slot++)
		issue(slot, false);
	while (done < writes) {
		const td_request_t written = host_written();
		const unsigned slot = (unsigned)written.sidx;
		const uint64_t cpu = by_cpu ? cpu_ns() : 0;
		td_complete_request(written, 0);
		if (by_cpu)
			note(cpu_ns() - cpu + started[slot]);
		if (issued < writes)
			issue(slot, issued % depth == 0);
	}
}

static void sleep_until(uint64_t ns)
{
	const struct timespec ts = {(time_t)(ns / 1000000000u), (long)(ns % 1000000000u)};
	(void)clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &ts, NULL);
}

static void paced(unsigned long rate)
{
	const uint64_t interval = 1000000000u / rate;
	uint64_t due = host_now_ns();
	(void)prctl(PR_SET_TIMERSLACK, 1ul);
	while (done < writes) {
		due += interval;
		sleep_until(due - interval / 2);
		/* That it was woken late is not the driver's doing. */
		const uint64_t woken = host_now_ns();
		const bool late = host_poll(woken) && host_now_ns() > due;
		if (!late)
			sleep_until(due);
		const td_request_t treq = host_request(issued++, 0);
		started[0] = !late ? host_now_ns() : woken > due ? woken : due;
		host_issue(treq);
		td_complete_request(host_written(), 0);
		/* When it was asleep for too long, it does not hurry afterwards. */
		if (host_now_ns() > due + interval)
			due = host_now_ns();
	}
}

static int ascending(const void *a, const void *b)
{
	const uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
	return x < y ? -1 : x > y;
}

/* The greatest quarter of a power of two that is no greater. */
static uint32_t rounded_down(uint32_t ns)
{
	if (ns < 4)
		return ns;
	const int shift = 31 - __builtin_clz(ns) - 2;
	return ns >> shift << shift;
}

static void print(void)
{
	qsort(took, writes, sizeof(*took), ascending);
	printf("%u %u %u %u\n", took[writes / 2], took[writes * 99 / 100],
		took[writes * 999 / 1000], took[writes - 1]);
	for (unsigned long i = 0, from = 0; i < writes; i++) {
		if (i + 1 < writes && rounded_down(took[i + 1]) == rounded_down(took[from]))
			continue;
		printf("%u %lu\n", rounded_down(took[from]), i + 1 - from);
		from = i + 1;
	}
}

int main(int argc, char **argv)
{
	if (argc != 6)
		return 64;
	const unsigned long gib = strtoul(argv[2], NULL, 10);
	const unsigned long depth = strtoul(argv[4], NULL, 10), rate = strtoul(argv[5], NULL, 10);
	by_cpu = strcmp(argv[5], "cpu") == 0;
	writes = strtoul(argv[3], NULL, 10);
	if (gib == 0 || gib > MAX_GIB || writes < depth || writes > MAX_WRITES || depth == 0 ||
		depth > HOST_MAX_DEPTH || rate > MAX_RATE ||
		(!rate && !by_cpu && strcmp(argv[5], "busy") != 0))
		return 64;
	took = malloc(writes * sizeof(*took));
	memset(took, 1, writes * sizeof(*took));
	host_open(strcmp(argv[1], "-") == 0 ? NULL : argv[1], gib << 21, (unsigned)depth, SECTORS);
	puts("begun");
	fflush(stdout);
	if (rate)
		paced(rate);
	else
		saturated((unsigned)depth);
	host_close();
	print();
	free(took);
	return 0;
}
