/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What capture.py needs besides nbdkit:
 *   drain PATH       a consumer that reads and releases for ever (exits when its parent does)
 *   publish PATH N   publishes N writes of 4 KiB, to count instructions
 */
#include "ring.h"

#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

static int drain(const char *path)
{
	struct tw_ring_reader *r;
	struct tw_record rec;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	int ret = tw_ring_reader_open(path, &r);
	while (ret >= 0) {
		for (int i = 0; i < 16 && (ret = tw_ring_next(r, &rec)) == 1; i++)
			;
		tw_ring_release(r);
		if (ret == 0) {
			struct pollfd pfd = {.fd = tw_ring_bell_fd(r), .events = POLLIN};
			if (tw_ring_arm(r) == 0)
				poll(&pfd, 1, -1);
			tw_ring_disarm(r);
		}
	}
	fprintf(stderr, "%s: %s\n", path, strerror(-ret));
	return 1;
}

static int publish(const char *path, long n)
{
	static char block[4096];
	struct tw_ring *ring;
	struct tw_ring_reader *r;
	struct tw_record rec;
	if (tw_ring_create(path, 1u << 30, 1u << 20, &ring) || tw_ring_reader_open(path, &r))
		return 1;
	for (long i = 0; i < n; i++) {
		tw_ring_publish(ring, 0, (uint64_t)i % 100000 * 8, 8, block);
		if (i % 64 == 63) {
			while (tw_ring_next(r, &rec) == 1)
				;
			tw_ring_release(r);
		}
	}
	tw_ring_reader_destroy(r);
	tw_ring_destroy(ring);
	return 0;
}

int main(int argc, char **argv)
{
	if (argc == 3 && strcmp(argv[1], "drain") == 0)
		return drain(argv[2]);
	if (argc == 4 && strcmp(argv[1], "publish") == 0)
		return publish(argv[2], atol(argv[3]));
	fprintf(stderr, "usage: ring_bench drain PATH | publish PATH N\n");
	return 64;
}
