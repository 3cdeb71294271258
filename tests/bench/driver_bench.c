/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What the tapdisk driver adds to a write: a chain of nothing but the driver and an image in
 * memory, with so many writes of so many sectors in flight.
 *
 *   driver_bench with|without WRITES DEPTH SECTORS
 *
 * The time that is added is what passes between the call of the driver's td_queue_write and the
 * arrival of the request below, and between the completion from below and its arrival above.
 * "without": the same with nothing in between. Prints the percentiles in nanoseconds: "p50 p99
 * p99.9 max mean". The ring is "bench" in TAPWIRE_RING_DIR; without that directory the driver lets
 * writes pass.
 */
#include "common/driver_host.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static uint32_t *added;
static unsigned long issued, done, writes;
static uint64_t started, spent[HOST_MAX_DEPTH]; /* of the last call; by slot, on the way down */

void host_below(unsigned slot)
{
	spent[slot] = host_now_ns() - started;
}

void host_above(unsigned slot)
{
	added[done++] = (uint32_t)(host_now_ns() - started + spent[slot]);
}

static void issue(unsigned slot)
{
	const td_request_t treq = host_request(issued++, slot);
	started = host_now_ns();
	host_issue(treq);
}

static void run(unsigned depth)
{
	for (unsigned slot = 0; slot < depth; slot++)
		issue(slot);
	while (done < writes) {
		const td_request_t treq = host_written();
		started = host_now_ns();
		td_complete_request(treq, 0);
		if (issued < writes)
			issue((unsigned)treq.sidx);
	}
}

static int ascending(const void *a, const void *b)
{
	const uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
	return x < y ? -1 : x > y;
}

int main(int argc, char **argv)
{
	const bool with = argc > 1 && strcmp(argv[1], "with") == 0;
	if (argc != 5 || (writes = strtoul(argv[2], NULL, 10)) < HOST_MAX_DEPTH)
		return 64;
	const unsigned depth = (unsigned)atoi(argv[3]), secs = (unsigned)atoi(argv[4]);
	if (depth == 0 || depth > HOST_MAX_DEPTH || secs == 0 || secs > HOST_MAX_SECTORS)
		return 64;
	added = calloc(writes, sizeof(*added));
	memset(added, 1, writes * sizeof(*added));
	host_open(with ? "bench" : NULL, HOST_IMAGE_SECTORS, depth, secs);
	run(depth);
	host_close();
	uint64_t sum = 0;
	for (unsigned long i = 0; i < writes; i++)
		sum += added[i];
	qsort(added, writes, sizeof(*added), ascending);
	printf("%u %u %u %u %.1f\n", added[writes / 2], added[writes / 100 * 99],
		added[writes / 1000 * 999], added[writes - 1], (double)sum / (double)writes);
	free(added);
	return 0;
}
