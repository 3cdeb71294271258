/* SPDX-License-Identifier: BSD-3-Clause */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "supervise/paths.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char scratch[64];

static int make_scratch(void **state)
{
	(void)state;
	strcpy(scratch, "/tmp/tapwire-paths-XXXXXX");
	return mkdtemp(scratch) && chdir(scratch) == 0 ? 0 : -1;
}

static int remove_scratch(void **state)
{
	(void)state;
	char command[128];
	snprintf(command, sizeof(command), "rm -rf '%s'", scratch);
	return system(command);
}

static mode_t mode_of(const char *path)
{
	struct stat st;
	assert_int_equal(stat(path, &st), 0);
	return st.st_mode & 07777;
}

static void assert_code(struct tw_error *err, enum tw_code code)
{
	assert_non_null(err);
	assert_int_equal(tw_error_code(err), code);
	tw_error_destroy(err);
}

static void a_directory_is_made_for_this_user_only(void **state)
{
	(void)state;
	umask(022);
	assert_null(tw_path_make_dir("a/b/c"));
	assert_int_equal(mode_of("a/b/c"), 0700);
	assert_int_equal(mode_of("a/b"), 0755);
	assert_null(tw_path_make_dir("a/b/c")); /* it is there */
}

static void a_file_in_the_way_of_a_directory_is_an_error(void **state)
{
	(void)state;
	close(open("file", O_CREAT | O_WRONLY, 0600));
	assert_code(tw_path_make_dir("file"), TW_IO);
	assert_code(tw_path_make_dir("file/below"), TW_IO);
	assert_code(tw_path_make_dir(""), TW_USAGE);
}

static void a_directory_is_locked_once(void **state)
{
	(void)state;
	int first = -1;
	int second = -1;
	assert_null(tw_path_lock(".", &first));
	assert_code(tw_path_lock(".", &second), TW_UNAVAILABLE);
	assert_int_equal(second, -1);
	close(first);
	assert_null(tw_path_lock(".", &second));
	close(second);
}

static void a_disk_key_is_the_image_whatever_it_is_called(void **state)
{
	(void)state;
	char *direct, *linked, *other;
	assert_null(tw_path_make_dir("x"));
	close(open("disk.img", O_CREAT | O_WRONLY, 0600));
	close(open("x/disk.img", O_CREAT | O_WRONLY, 0600));
	assert_int_equal(symlink("disk.img", "link"), 0);
	assert_null(tw_path_disk_key("disk.img", &direct));
	assert_null(tw_path_disk_key("link", &linked));
	assert_null(tw_path_disk_key("x/disk.img", &other));
	assert_memory_equal(direct, "disk.img-", 9);
	assert_string_equal(direct, linked);
	assert_string_not_equal(direct, other);
	free(direct);
	free(linked);
	free(other);
	assert_code(tw_path_disk_key("nothing", &direct), TW_IO);
}

static void a_ring_directory_is_the_same_each_time_and_private(void **state)
{
	(void)state;
	char *first, *again;
	assert_null(tw_path_make_dir("state"));
	assert_null(tw_path_ring_dir("state", &first));
	assert_null(tw_path_ring_dir("state", &again));
	assert_string_equal(first, again);
	assert_int_equal(mode_of(first), 0700);
	free(again);
	if (strncmp(first, "/dev/shm/", 9) == 0) {
		/* One that others could have made or may write to is refused. */
		assert_int_equal(chmod(first, 0777), 0);
		assert_code(tw_path_ring_dir("state", &again), TW_UNAVAILABLE);
		assert_int_equal(rmdir(first), 0);
	}
	free(first);
}

static void a_socket_name_has_its_limit(void **state)
{
	(void)state;
	char name[200];
	memset(name, 'x', sizeof(name));
	name[107] = '\0';
	assert_null(tw_path_check_socket(name));
	name[107] = 'x';
	name[108] = '\0';
	assert_code(tw_path_check_socket(name), TW_USAGE);
}

static void a_program_is_found_beside_this_one_first(void **state)
{
	(void)state;
	char self[4096];
	char *found;
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
	assert_true(n > 0);
	self[n] = '\0';
	assert_null(tw_path_program(strrchr(self, '/') + 1, &found));
	assert_string_equal(found, self);
	free(found);
	assert_null(tw_path_program("sh", &found)); /* in PATH */
	free(found);
	assert_code(tw_path_program("no-such-program-of-tapwire", &found), TW_UNAVAILABLE);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_directory_is_made_for_this_user_only),
		cmocka_unit_test(a_file_in_the_way_of_a_directory_is_an_error),
		cmocka_unit_test(a_directory_is_locked_once),
		cmocka_unit_test(a_disk_key_is_the_image_whatever_it_is_called),
		cmocka_unit_test(a_ring_directory_is_the_same_each_time_and_private),
		cmocka_unit_test(a_socket_name_has_its_limit),
		cmocka_unit_test(a_program_is_found_beside_this_one_first),
	};
	return cmocka_run_group_tests(tests, make_scratch, remove_scratch);
}
