/* SPDX-License-Identifier: BSD-3-Clause */
#include "trace.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#define DISK_BYTES (1u << 20)
#define RECORDS 5

static int setup(void **state)
{
	char *path = strdup("/tmp/tapwire-trace-XXXXXX");
	int fd = mkstemp(path);
	*state = path;
	return fd < 0 || close(fd) < 0 ? -1 : 0;
}

static int teardown(void **state)
{
	int ret = unlink(*state);
	free(*state);
	return ret;
}

/* Five records: three with payload of 1, 2, 3 sectors, a flush, and zeroes. */
static struct tw_record sample(int i)
{
	static char payload[3 * TW_SECTOR_SIZE];
	struct tw_record rec = {.sequence = (uint64_t)i + 1, .time_ns = 1000 + (uint64_t)i};
	if (i == 3) {
		rec.flags = TW_RECORD_FLUSH;
		return rec;
	}
	rec.sector = 10 * (uint64_t)i;
	rec.nsectors = (uint32_t)i + 1;
	rec.flags = i == 4 ? TW_RECORD_ZEROES : TW_RECORD_PAYLOAD;
	memset(payload, 'a' + i, sizeof(payload));
	rec.payload = i == 4 ? NULL : payload;
	return rec;
}

static void write_samples(struct tw_trace_writer *w)
{
	for (int i = 0; i < RECORDS; i++) {
		struct tw_record rec = sample(i);
		assert_int_equal(tw_trace_write(w, &rec), 0);
	}
}

static size_t write_trace(const char *path)
{
	struct tw_trace_writer *w;
	assert_int_equal(tw_trace_writer_create(path, DISK_BYTES, &w), 0);
	write_samples(w);
	const size_t bytes = tw_trace_bytes(w);
	assert_int_equal(tw_trace_writer_destroy(w), 0);
	return bytes;
}

static void assert_same(const struct tw_record *got, const struct tw_record *want)
{
	assert_int_equal(got->sequence, want->sequence);
	assert_int_equal(got->time_ns, want->time_ns);
	assert_int_equal(got->sector, want->sector);
	assert_int_equal(got->nsectors, want->nsectors);
	assert_int_equal(got->flags, want->flags);
	if (want->payload)
		assert_memory_equal(got->payload, want->payload, want->nsectors * TW_SECTOR_SIZE);
	else
		assert_null(got->payload);
}

/* Reads what is there; returns the number of records and, in *ret, how it ended. */
static int read_samples(const char *path, int *ret)
{
	struct tw_trace_reader *r;
	struct tw_record rec;
	int count = 0;
	*ret = tw_trace_reader_open(path, &r);
	if (*ret)
		return 0;
	assert_int_equal(tw_trace_disk_bytes(r), DISK_BYTES);
	while ((*ret = tw_trace_next(r, &rec)) == 1) {
		struct tw_record want = sample(count % RECORDS);
		assert_same(&rec, &want);
		count++;
	}
	tw_trace_reader_destroy(r);
	return count;
}

static void put_bytes(const char *path, off_t at, const void *bytes, size_t n)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	assert_int_equal(pwrite(fd, bytes, n, at), n);
	close(fd);
}

static void what_is_written_is_read(void **state)
{
	struct stat st;
	int ret;
	const size_t bytes = write_trace(*state);
	assert_int_equal(bytes, TW_TRACE_HEADER_BYTES + RECORDS * TW_TRACE_RECORD_BYTES + 6 * 512);
	assert_int_equal(stat(*state, &st), 0);
	assert_int_equal(st.st_size, bytes);
	assert_int_equal(read_samples(*state, &ret), RECORDS);
	assert_int_equal(ret, 0);
}

/* The format is for other programs too. */
static void the_bytes_are_those_of_the_format(void **state)
{
	/* clang-format off */
	static const unsigned char want[] = {
		'T', 'W', 'T', 'R', 'A', 'C', 'E', '1', 0, 2, 0, 0, 0, 0, 0, 0,
		0, 0, 16, 0, 0, 0, 0, 0,
		1, 0, 0, 0, 0, 0, 0, 0, 0xe8, 3, 0, 0, 0, 0, 0, 0,
		0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0,
		'a', 'a',
	};
	/* clang-format on */
	unsigned char got[sizeof(want)];
	write_trace(*state);
	int fd = open(*state, O_RDONLY | O_CLOEXEC);
	assert_int_equal(read(fd, got, sizeof(got)), sizeof(got));
	close(fd);
	assert_memory_equal(got, want, sizeof(want));
}

static void a_trace_cut_off_anywhere_ends_clean_or_with_epipe(void **state)
{
	const size_t bytes = write_trace(*state);
	size_t whole[RECORDS + 1] = {TW_TRACE_HEADER_BYTES};
	for (int i = 0; i < RECORDS; i++) {
		struct tw_record rec = sample(i);
		whole[i + 1] =
			whole[i] + TW_TRACE_RECORD_BYTES + (rec.payload ? rec.nsectors * 512 : 0);
	}
	for (size_t size = bytes; size-- > 0;) {
		int ret, complete = 0;
		assert_int_equal(truncate(*state, (off_t)size), 0);
		while (complete < RECORDS && whole[complete + 1] <= size)
			complete++;
		assert_int_equal(read_samples(*state, &ret), complete);
		assert_int_equal(ret, whole[complete] == size ? 0 : -EPIPE);
	}
}

static void what_breaks_the_format_is_named_at_its_offset(void **state)
{
	const uint32_t unknown = 32, wide = TW_TRACE_MAX_SECTORS + 1,
		       gap = TW_RECORD_GAP | TW_RECORD_PAYLOAD;
	const uint32_t none = 0, sector_size = 4096;
	const uint64_t beyond = DISK_BYTES / 512, wraps = UINT64_MAX;
	const off_t first = TW_TRACE_HEADER_BYTES, second = first + TW_TRACE_RECORD_BYTES + 512;
	const struct {
		off_t at;
		const void *bytes;
		size_t n;
		int error;
		int records;
	} cases[] = {
		{0, "X", 1, -EBADMSG, 0},
		{8, &sector_size, 4, -EBADMSG, 0},
		{12, &unknown, 4, -EBADMSG, 0},
		{second + 28, &unknown, 4, -EBADMSG, 1},
		{second + 28, &gap, 4, -EBADMSG, 1},
		{second + 24, &wide, 4, -EBADMSG, 1},
		{second + 24, &none, 4, -EBADMSG, 1},
		{second + 16, &beyond, 8, -ERANGE, 1},
		{second + 16, &wraps, 8, -ERANGE, 1},
	};
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		struct tw_trace_reader *r;
		struct tw_record rec;
		write_trace(*state);
		put_bytes(*state, cases[i].at, cases[i].bytes, cases[i].n);
		int ret = tw_trace_reader_open(*state, &r);
		if (cases[i].records == 0) {
			assert_int_equal(ret, cases[i].error);
			continue;
		}
		assert_int_equal(ret, 0);
		assert_int_equal(tw_trace_next(r, &rec), 1);
		assert_int_equal(tw_trace_offset(r), first);
		assert_int_equal(tw_trace_next(r, &rec), cases[i].error);
		assert_int_equal(tw_trace_offset(r), second);
		tw_trace_reader_destroy(r);
	}
}

static void random_bytes_do_no_harm(void **state)
{
	srandom(1);
	for (int round = 0; round < 2000; round++) {
		struct tw_trace_reader *r;
		struct tw_record rec;
		const size_t bytes = write_trace(*state);
		for (long i = random() % 8; i >= 0; i--) {
			const unsigned char byte = (unsigned char)random();
			put_bytes(*state, random() % (long)bytes, &byte, 1);
		}
		int ret = tw_trace_reader_open(*state, &r);
		if (ret) {
			assert_int_equal(ret, -EBADMSG);
			continue;
		}
		unsigned sum = 0;
		for (int i = 0; i < 1000 && (ret = tw_trace_next(r, &rec)) == 1; i++)
			for (size_t b = 0; rec.payload && b < rec.nsectors * 512; b++)
				sum += ((const unsigned char *)rec.payload)[b];
		assert_true(ret == 0 || ret == -EBADMSG || ret == -ERANGE || ret == -EPIPE);
		*(volatile unsigned *)&sum = sum;
		tw_trace_reader_destroy(r);
	}
}

static void append_goes_on_after_the_last_whole_record(void **state)
{
	struct tw_trace_writer *w;
	uint64_t last;
	int ret;
	const size_t bytes = write_trace(*state);
	const off_t tails[] = {0, 1, 31, 32, 100};
	for (size_t i = 0; i < sizeof(tails) / sizeof(*tails); i++) {
		struct tw_record torn = sample(2);
		assert_int_equal(truncate(*state, (off_t)bytes), 0);
		assert_int_equal(tw_trace_writer_append(*state, DISK_BYTES, &w, &last), 0);
		assert_int_equal(tw_trace_write(w, &torn), 0);
		assert_int_equal(tw_trace_writer_destroy(w), 0);
		assert_int_equal(truncate(*state, (off_t)bytes + tails[i]), 0);

		assert_int_equal(tw_trace_writer_append(*state, DISK_BYTES, &w, &last), 0);
		assert_int_equal(last, RECORDS);
		assert_int_equal(tw_trace_bytes(w), bytes);
		write_samples(w);
		assert_int_equal(tw_trace_writer_destroy(w), 0);
		assert_int_equal(read_samples(*state, &ret), 2 * RECORDS);
		assert_int_equal(ret, 0);
	}
}

static void append_makes_a_trace_of_an_empty_file_or_a_torn_header(void **state)
{
	struct tw_trace_writer *w;
	uint64_t last;
	int ret;
	write_trace(*state);
	for (off_t size = TW_TRACE_HEADER_BYTES - 1; size >= 0; size -= 11) {
		assert_int_equal(truncate(*state, size), 0);
		assert_int_equal(tw_trace_writer_append(*state, DISK_BYTES, &w, &last), 0);
		assert_int_equal(last, 0);
		write_samples(w);
		assert_int_equal(tw_trace_writer_destroy(w), 0);
		assert_int_equal(read_samples(*state, &ret), RECORDS);
	}
}

static void append_refuses_another_disk_and_other_files(void **state)
{
	struct tw_trace_writer *w = NULL;
	uint64_t last;
	struct stat before, after;
	write_trace(*state);
	assert_int_equal(stat(*state, &before), 0);
	assert_int_equal(tw_trace_writer_append(*state, 2 * DISK_BYTES, &w, &last), -EINVAL);
	put_bytes(*state, 0, "not a trace", 11);
	assert_int_equal(tw_trace_writer_append(*state, DISK_BYTES, &w, &last), -EBADMSG);
	assert_int_equal(stat(*state, &after), 0);
	assert_int_equal(before.st_size, after.st_size);
	assert_int_equal(
		tw_trace_writer_append("/nonexistent/trace", DISK_BYTES, &w, &last), -ENOENT);
}

static void a_full_disk_leaves_a_shorter_trace_and_is_told_each_time(void **state)
{
	struct tw_trace_writer *w;
	struct rlimit old, limit;
	int ret;
	signal(SIGXFSZ, SIG_IGN);
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
	assert_int_equal(tw_trace_writer_create(*state, DISK_BYTES, &w), 0);
	write_samples(w);
	assert_int_equal(tw_trace_flush(w), 0);
	limit = old;
	limit.rlim_cur = tw_trace_bytes(w) + 1000; /* in the middle of a record */
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
	write_samples(w);
	assert_int_equal(tw_trace_flush(w), -EFBIG);
	struct tw_record rec = sample(0);
	assert_int_equal(tw_trace_write(w, &rec), -EFBIG);
	assert_int_equal(tw_trace_writer_destroy(w), -EFBIG);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
	assert_int_equal(read_samples(*state, &ret), RECORDS);
	assert_int_equal(ret, 0);
}

static void a_writer_refuses_what_a_reader_would(void **state)
{
	struct tw_trace_writer *w;
	assert_int_equal(tw_trace_writer_create(*state, DISK_BYTES, &w), 0);
	struct tw_record rec = sample(0);
	rec.sector = DISK_BYTES / 512;
	assert_int_equal(tw_trace_write(w, &rec), -ERANGE);
	rec = sample(0);
	rec.flags |= 64;
	assert_int_equal(tw_trace_write(w, &rec), -EBADMSG);
	rec = sample(0);
	assert_int_equal(tw_trace_write(w, &rec), 0);
	assert_int_equal(tw_trace_writer_destroy(w), 0);
}

static void the_longest_record_goes_through(void **state)
{
	const uint64_t disk = (uint64_t)TW_TRACE_MAX_SECTORS * 512 * 2;
	const size_t bytes = (size_t)TW_TRACE_MAX_SECTORS * 512;
	struct tw_trace_writer *w;
	struct tw_trace_reader *r;
	struct tw_record got;
	char *payload = malloc(bytes);
	for (size_t i = 0; i < bytes; i++)
		payload[i] = (char)(i / 512 * 7 + i);
	struct tw_record rec = {
		1, 2, TW_TRACE_MAX_SECTORS, TW_TRACE_MAX_SECTORS, TW_RECORD_PAYLOAD, payload};
	assert_int_equal(tw_trace_writer_create(*state, disk, &w), 0);
	assert_int_equal(tw_trace_write(w, &rec), 0);
	assert_int_equal(tw_trace_writer_destroy(w), 0);
	assert_int_equal(tw_trace_reader_open(*state, &r), 0);
	assert_int_equal(tw_trace_next(r, &got), 1);
	assert_same(&got, &rec);
	assert_int_equal(tw_trace_next(r, &got), 0);
	tw_trace_reader_destroy(r);
	free(payload);
}

static void a_last_sector_that_is_not_whole_counts(void **state)
{
	struct tw_trace_writer *w;
	struct tw_record rec = sample(0);
	rec.sector = 2;
	assert_int_equal(tw_trace_writer_create(*state, 1025, &w), 0);
	assert_int_equal(tw_trace_write(w, &rec), 0);
	rec.sector = 3;
	assert_int_equal(tw_trace_write(w, &rec), -ERANGE);
	assert_int_equal(tw_trace_writer_destroy(w), 0);
}

static void a_dash_is_standard_input_and_may_be_a_pipe(void **state)
{
	int pipefd[2], saved = dup(STDIN_FILENO), ret;
	char bytes[8192];
	write_trace(*state);
	int fd = open(*state, O_RDONLY | O_CLOEXEC);
	ssize_t n = read(fd, bytes, sizeof(bytes));
	close(fd);
	assert_int_equal(pipe(pipefd), 0);
	assert_int_equal(write(pipefd[1], bytes, (size_t)n), n);
	close(pipefd[1]);
	dup2(pipefd[0], STDIN_FILENO);
	close(pipefd[0]);
	assert_int_equal(read_samples("-", &ret), RECORDS);
	assert_int_equal(ret, 0);
	dup2(saved, STDIN_FILENO);
	close(saved);
}

static void what_is_no_trace_is_said_to_be_none(void **state)
{
	int ret;
	assert_int_equal(truncate(*state, 0), 0);
	read_samples(*state, &ret);
	assert_int_equal(ret, -EPIPE);
	put_bytes(*state, 0, "abc", 3);
	read_samples(*state, &ret);
	assert_int_equal(ret, -EBADMSG);
	read_samples("/nonexistent", &ret);
	assert_int_equal(ret, -ENOENT);
	read_samples("/tmp", &ret);
	assert_int_equal(ret, -EISDIR);
}

int main(void)
{
#define trace_test(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		trace_test(what_is_written_is_read),
		trace_test(the_bytes_are_those_of_the_format),
		trace_test(a_trace_cut_off_anywhere_ends_clean_or_with_epipe),
		trace_test(what_breaks_the_format_is_named_at_its_offset),
		trace_test(random_bytes_do_no_harm),
		trace_test(append_goes_on_after_the_last_whole_record),
		trace_test(append_makes_a_trace_of_an_empty_file_or_a_torn_header),
		trace_test(append_refuses_another_disk_and_other_files),
		trace_test(a_full_disk_leaves_a_shorter_trace_and_is_told_each_time),
		trace_test(a_writer_refuses_what_a_reader_would),
		trace_test(the_longest_record_goes_through),
		trace_test(a_last_sector_that_is_not_whole_counts),
		trace_test(a_dash_is_standard_input_and_may_be_a_pipe),
		trace_test(what_is_no_trace_is_said_to_be_none),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
