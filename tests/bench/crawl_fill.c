/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Fills a mounted file system: crawl_fill DIR FILES DIRS BLOCKS makes FILES files with names of 14
 * bytes, spread over DIRS directories, each with BLOCKS blocks of 4 KiB that are allocated but not
 * written (0: empty files).
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static void die(const char *what)
{
	perror(what);
	exit(1);
}

static void fill(int dir, long first, long count, off_t bytes)
{
	char name[32];
	for (long i = first; i < first + count; i++) {
		snprintf(name, sizeof(name), "file-%09ld", i);
		int fd = openat(dir, name, O_WRONLY | O_CREAT | O_EXCL, 0644);
		if (fd < 0)
			die(name);
		if (bytes && fallocate(fd, 0, 0, bytes))
			die("fallocate");
		close(fd);
	}
}

int main(int argc, char **argv)
{
	if (argc != 5) {
		fprintf(stderr, "usage: crawl_fill DIR FILES DIRS BLOCKS\n");
		return 2;
	}
	long files = atol(argv[2]), dirs = atol(argv[3]), made = 0;
	off_t bytes = atol(argv[4]) * 4096;
	if (chdir(argv[1]))
		die(argv[1]);
	for (long d = 0; d < dirs; d++) {
		char name[32];
		snprintf(name, sizeof(name), "directory-%04ld", d);
		if (mkdir(name, 0755))
			die(name);
		int dir = open(name, O_RDONLY | O_DIRECTORY);
		if (dir < 0)
			die(name);
		long count = files * (d + 1) / dirs - made;
		fill(dir, made, count, bytes);
		made += count;
		close(dir);
	}
	return 0;
}
