/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * spent FILE COMMAND [ARGUMENT...]: runs a command and writes to FILE: wall seconds, processor
 * seconds, peak RSS in KiB. The kernel counts in a process's peak what its parent had when it
 * forked, so an interpreter that starts a command itself measures its own memory.
 */
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static double now(void)
{
	struct timespec ts;
	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static double seconds(struct timeval tv)
{
	return (double)tv.tv_sec + (double)tv.tv_usec / 1e6;
}

int main(int argc, char **argv)
{
	if (argc < 3) {
		fprintf(stderr, "usage: spent FILE COMMAND [ARGUMENT...]\n");
		return 2;
	}
	double start = now();
	pid_t pid = fork();
	if (!pid) {
		execvp(argv[2], argv + 2);
		perror(argv[2]);
		_exit(127);
	}
	int status;
	struct rusage usage;
	if (pid < 0 || wait4(pid, &status, 0, &usage) != pid) {
		perror("spent");
		return 1;
	}
	double wall = now() - start;
	FILE *out = fopen(argv[1], "w");
	if (!out || fprintf(out, "%.6f %.6f %ld\n", wall,
			    seconds(usage.ru_utime) + seconds(usage.ru_stime), usage.ru_maxrss) < 0 ||
		fclose(out)) {
		perror(argv[1]);
		return 1;
	}
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
