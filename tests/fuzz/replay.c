/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Runs a fuzz target over files and over the files of directories, without a fuzzer: what make check
 * does with each corpus. Linked with one fuzz_<thing>.c, which says what its input is.
 */
#include <dirent.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define INPUT_LIMIT (16u << 20)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int run_file(const char *path, size_t size)
{
	if (size > INPUT_LIMIT) {
		fprintf(stderr, "%s: too long\n", path);
		return 1;
	}
	FILE *file = fopen(path, "rb");
	/* Exactly as long as the input, so that the sanitizer sees the first byte too far. */
	uint8_t *data = malloc(size ? size : 1);
	int failed = !file || !data || fread(data, 1, size, file) != size;
	if (failed)
		fprintf(stderr, "%s: %s\n", path, strerror(errno));
	else
		LLVMFuzzerTestOneInput(data, size);
	if (file)
		fclose(file);
	free(data);
	return failed;
}

static int run_path(const char *path, int depth);

static int run_directory(const char *path, int depth)
{
	struct dirent **entries;
	int count = scandir(path, &entries, NULL, alphasort);
	int failed = count < 0;
	for (int i = 0; i < count; i++) {
		char below[4096];
		snprintf(below, sizeof(below), "%s/%s", path, entries[i]->d_name);
		if (entries[i]->d_name[0] != '.')
			failed |= run_path(below, depth + 1);
		free(entries[i]);
	}
	if (count >= 0)
		free(entries);
	return failed;
}

static int run_path(const char *path, int depth)
{
	struct stat st;
	if (depth > 3 || stat(path, &st) != 0) {
		fprintf(stderr, "%s: cannot be read\n", path);
		return 1;
	}
	if (S_ISDIR(st.st_mode))
		return run_directory(path, depth);
	return run_file(path, (size_t)st.st_size);
}

int main(int argc, char **argv)
{
	int failed = argc < 2;
	for (int i = 1; i < argc; i++)
		failed |= run_path(argv[i], 0);
	return failed;
}
