/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What capture.py and others need besides nbdkit. With "ranges" at the end, the consumer wants no content.
 *   drain PATH                a consumer that reads and releases for ever (until its parent ends)
 *   doze PATH                 the same, but it sleeps for 5 ms each time that it has read all there is
 *   publish PATH N BYTES      publishes N writes of so many bytes, to count instructions
 *   request PATH N BYTES      the same through all that nbdkit's plugin does for a write
 *   speed PATH BYTES          says how many ns of processor time a publish takes
 *   image PATH IMAGE BYTES    writes to an image by itself, with content captured, with ranges; says
 *                             how many ns of processor time a write takes then
 */
#include "capture.h"
#include "ring.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#define DISK_BYTES (1ull << 30)
#define MAX_BYTES (1u << 20)
#define DOZE_US 5000

static int drain(const char *path, bool ranges, bool dozes)
{
	struct tw_ring_reader *r;
	struct tw_record rec;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	int ret = tw_ring_reader_open(path, &r);
	if (ret >= 0)
		tw_ring_interest(r, ranges);
	while (ret >= 0) {
		for (int i = 0; i < 16 && (ret = tw_ring_next(r, &rec)) == 1; i++)
			;
		tw_ring_release(r);
		if (ret == 0 && dozes) {
			usleep(DOZE_US);
		} else if (ret == 0) {
			struct pollfd pfd = {.fd = tw_ring_bell_fd(r), .events = POLLIN};
			if (tw_ring_arm(r) == 0)
				poll(&pfd, 1, -1);
			tw_ring_disarm(r);
		}
	}
	fprintf(stderr, "%s: %s\n", path, strerror(-ret));
	return 1;
}

/* Keeps room in the ring, as a consumer that is awake does. */
static void release_all(struct tw_ring_reader *r)
{
	struct tw_record rec;
	while (tw_ring_next(r, &rec) == 1)
		;
	tw_ring_release(r);
}

static struct tw_ring_reader *open_reader(const char *path, bool ranges)
{
	struct tw_ring_reader *r;
	if (tw_ring_reader_open(path, &r))
		exit(1);
	tw_ring_interest(r, ranges);
	return r;
}

static void report(const char *fmt, ...)
{
	va_list args;
	va_start(args, fmt);
	vfprintf(stderr, fmt, args);
	va_end(args);
}

/* Prints how many bytes went into the ring. */
static int request(const char *path, long n, size_t bytes, bool ranges)
{
	static char block[MAX_BYTES];
	struct capture *capture;
	struct tw_ring_stats stats;
	if (capture_create(path, 1u << 24, NULL, false, DISK_BYTES, report, &capture))
		return 1;
	struct tw_ring_reader *r = open_reader(path, ranges);
	for (long i = 0; i < n; i++) {
		const uint64_t offset = (uint64_t)i * bytes % DISK_BYTES;
		const struct capture_hold hold = capture_begin(capture, offset, bytes);
		capture_publish(capture, 0, hold.sector, hold.nsectors, block, false);
		capture_end(capture, &hold);
		if (i % 8 == 7)
			release_all(r);
	}
	tw_ring_reader_stats(r, &stats);
	printf("%llu\n", (unsigned long long)stats.payload_bytes);
	tw_ring_reader_destroy(r);
	capture_destroy(capture);
	return 0;
}

/* Publishes writes until so many bytes have gone by; returns how many they were. */
static long publish_some(struct tw_ring *ring, struct tw_ring_reader *r, long n, size_t bytes)
{
	static char block[4][MAX_BYTES];
	static uint64_t sector;
	for (long i = 0; i < n; i++) {
		tw_ring_publish(ring, 0, sector, bytes / TW_SECTOR_SIZE, block[i % 4]);
		sector = (sector + bytes / TW_SECTOR_SIZE) % (DISK_BYTES / TW_SECTOR_SIZE / 2);
		if (i % 8 == 7)
			release_all(r);
	}
	release_all(r);
	return n;
}

static double cpu_ns(void)
{
	struct timespec ts;
	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
	return (double)ts.tv_sec * 1e9 + (double)ts.tv_nsec;
}

/* n 0: as many as a ring holds, several times, of which the fastest counts. */
static int publish(const char *path, long n, size_t bytes, bool ranges)
{
	struct tw_ring *ring;
	double best = 1e18;
	if (tw_ring_create(path, DISK_BYTES, TW_RING_DEFAULT_BYTES, &ring))
		return 1;
	struct tw_ring_reader *r = open_reader(path, ranges);
	if (n) {
		publish_some(ring, r, n, bytes);
	} else {
		for (int i = 0; i < 15; i++) {
			const double start = cpu_ns();
			n = publish_some(ring, r, (long)(TW_RING_DEFAULT_BYTES / bytes), bytes);
			const double took = (cpu_ns() - start) / (double)n;
			best = took < best ? took : best;
		}
		printf("%.1f\n", best);
	}
	tw_ring_reader_destroy(r);
	tw_ring_destroy(ring);
	return 0;
}

enum { PLAIN, CONTENT, RANGES, WAYS, ROUNDS = 101 };

static int compare(const void *a, const void *b)
{
	const double x = *(const double *)a, y = *(const double *)b;
	return (x > y) - (x < y);
}

/* A batch of writes to places of the image that come in no order. Returns ns a write. */
static double write_batch(int fd, struct capture *capture, size_t bytes, int way)
{
	static char block[MAX_BYTES];
	static uint64_t seed;
	const long n = bytes < 65536 ? 512 : 16;
	const double start = cpu_ns();
	for (long i = 0; i < n; i++) {
		seed = seed * 6364136223846793005u + 1442695040888963407u;
		const uint64_t offset = (seed >> 33) % (DISK_BYTES / 4 / bytes) * bytes;
		struct capture_hold hold;
		if (way != PLAIN)
			hold = capture_begin(capture, offset, bytes);
		if (pwrite(fd, block, bytes, (off_t)offset) != (ssize_t)bytes)
			exit(1);
		if (way != PLAIN) {
			capture_publish(capture, 0, hold.sector, hold.nsectors, block, false);
			capture_end(capture, &hold);
		}
	}
	return (cpu_ns() - start) / (double)n;
}

static int image(const char *path, const char *name, size_t bytes)
{
	static double took[WAYS][ROUNDS];
	struct capture *capture;
	const int fd = open(name, O_RDWR | O_CLOEXEC);
	if (fd < 0 || capture_create(path, TW_RING_DEFAULT_BYTES, NULL, false, DISK_BYTES, report,
			      &capture))
		return 1;
	struct tw_ring_reader *r = open_reader(path, false);
	for (int round = 0; round < ROUNDS; round++) {
		for (int k = 0; k < WAYS; k++) {
			const int way = (round + k) % WAYS;
			tw_ring_interest(r, way == RANGES);
			took[way][round] = write_batch(fd, capture, bytes, way);
			release_all(r);
		}
	}
	for (int way = 0; way < WAYS; way++) {
		qsort(took[way], ROUNDS, sizeof(double), compare);
		printf("%.1f\n", took[way][ROUNDS / 2]);
	}
	tw_ring_reader_destroy(r);
	capture_destroy(capture);
	close(fd);
	return 0;
}

int main(int argc, char **argv)
{
	const bool ranges = argc > 3 && strcmp(argv[argc - 1], "ranges") == 0;
	argc -= ranges;
	const size_t bytes = argc > 3 ? strtoul(argv[argc - 1], NULL, 10) : 0;
	if (argc == 3 && strcmp(argv[1], "drain") == 0)
		return drain(argv[2], ranges, false);
	if (argc == 3 && strcmp(argv[1], "doze") == 0)
		return drain(argv[2], ranges, true);
	if (bytes && bytes <= MAX_BYTES) {
		if (argc == 5 && strcmp(argv[1], "publish") == 0)
			return publish(argv[2], atol(argv[3]), bytes, ranges);
		if (argc == 5 && strcmp(argv[1], "request") == 0)
			return request(argv[2], atol(argv[3]), bytes, ranges);
		if (argc == 5 && strcmp(argv[1], "image") == 0)
			return image(argv[2], argv[3], bytes);
		if (argc == 4 && strcmp(argv[1], "speed") == 0)
			return publish(argv[2], 0, bytes, ranges);
	}
	fprintf(stderr, "usage: see the top of ring_bench.c\n");
	return 64;
}
