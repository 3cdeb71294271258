/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The producers of many rings in one process, for tests that need capture points and no guests' writes. Reads
 * commands, a line each, and answers each with a line, "0" or an errno:
 *   + BYTES PATH   a capture point of a disk of that size comes up
 *   - PATH         it ends
 */
#include "ring.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

struct producer {
	char *path;
	struct tw_ring *ring;
};

static struct producer *producers;
static size_t n;

static int come(const char *text)
{
	char *path;
	unsigned long long bytes = strtoull(text, &path, 10);
	struct tw_ring *ring;
	producers = reallocarray(producers, n + 1, sizeof(*producers));
	if (!producers || *path != ' ')
		abort();
	int ret = tw_ring_create(path + 1, bytes, TW_RING_MIN_BYTES, &ring);
	if (ret < 0)
		return -ret;
	producers[n++] = (struct producer){ strdup(path + 1), ring };
	return 0;
}

static int go(const char *path)
{
	for (size_t i = 0; i < n; i++) {
		if (strcmp(producers[i].path, path) != 0)
			continue;
		tw_ring_destroy(producers[i].ring);
		free(producers[i].path);
		producers[i] = producers[--n];
		return 0;
	}
	return 2; /* ENOENT */
}

int main(void)
{
	char line[4096];
	struct rlimit files;
	getrlimit(RLIMIT_NOFILE, &files);
	files.rlim_cur = files.rlim_max;
	setrlimit(RLIMIT_NOFILE, &files);
	setvbuf(stdout, NULL, _IOLBF, 0);
	while (fgets(line, sizeof(line), stdin)) {
		line[strcspn(line, "\n")] = '\0';
		printf("%d\n", *line == '+' ? come(line + 2) : go(line + 2));
	}
	while (n)
		go(producers[0].path);
	free(producers);
	return 0;
}
