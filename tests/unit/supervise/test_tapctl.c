/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * How a tapdisk gets a mirror, and how its disk goes on whatever happens. tap-ctl is a script that keeps
 * a disk's state in files and fails where it is told to; tests/tapdisk has the real one.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/scope.h"
#include "supervise/allocated.h"
#include "supervise/tapctl.h"

#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

/* state: the disk's; log: what was done; fail: commands that fail, each once a line. */
static const char script[] =
	"#!/bin/sh\n"
	"cd \"$(dirname \"$0\")\"\n"
	"echo \"$*\" >>log\n"
	"if grep -qx \"$1\" fail 2>/dev/null; then\n"
	"	sed -i \"0,/^$1\\$/{/^$1\\$/d}\" fail\n"
	"	exit 1\n"
	"fi\n"
	"case $1 in\n"
	"list)\n"
	"	echo 'pid=1 minor=8'\n"
	"	echo 'pid=1 minor=9 state=0 args=aio:/dev/null'\n"
	"	echo \"pid=$PPID minor=4 state=$(cat state) args=$(cat args)\" ;;\n"
	"pause)\n"
	"	while [ -e asleep ]; do sleep 0.01; done\n"
	"	echo 0x2a >state\n"
	"	[ ! -e hung ] || exec sleep 1000 ;;\n"
	"stats) rm -f asleep ;;\n"
	"unpause) echo 0 >state; [ ! -e theirs ] ;;\n"
	"esac\n";

static char dir[] = "/tmp/tapwire-tapctl-XXXXXX";
static char image[64], tap_ctl[64], mark[64];

static void put(const char *name, const char *text)
{
	char path[80];
	snprintf(path, sizeof(path), "%s/%s", dir, name);
	FILE *file = fopen(path, "w");
	assert_non_null(file);
	fputs(text, file);
	fclose(file);
}

static const char *get(const char *name)
{
	static char text[4096];
	char path[80];
	snprintf(path, sizeof(path), "%s/%s", dir, name);
	FILE *file = fopen(path, "r");
	size_t n = file ? fread(text, 1, sizeof(text) - 1, file) : 0;
	text[n] = '\0';
	if (file)
		fclose(file);
	return text;
}

static void remove_all(void)
{
	char command[128];
	snprintf(command, sizeof(command), "rm -rf %s", dir);
	assert_int_equal(system(command), 0);
}

static int setup(void **state)
{
	char args[128];
	(void)state;
	strcpy(dir + strlen(dir) - 6, "XXXXXX");
	assert_non_null(mkdtemp(dir));
	snprintf(image, sizeof(image), "%s/a disk", dir);
	snprintf(tap_ctl, sizeof(tap_ctl), "%s/tap-ctl", dir);
	snprintf(mark, sizeof(mark), "%s/mark", dir);
	put("tap-ctl", script);
	chmod(tap_ctl, 0700);
	put("state", "0\n");
	put("a disk", "");
	snprintf(args, sizeof(args), "aio:%s\n", image);
	put("args", args);
	int fd = open(image, O_RDWR);
	assert_int_equal(posix_fallocate(fd, 0, 1 << 20), 0);
	close(fd);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	remove_all();
	return 0;
}

static int change(const char *socket, const char *target, char *said)
{
	static char line[512];
	const struct tw_mirror_switch what = { tap_ctl, target, image, socket, mark };
	return tw_tapctl_switch(&what, said ? said : line, sizeof(line));
}

static bool exists(const char *path)
{
	return access(path, F_OK) == 0;
}

/* --- lines --- */

static void a_line_tells_of_a_disk(void **state)
{
	(void)state;
	struct tw_vbd vbd;
	char line[] = "pid=123 minor=0 state=0x2a args=aio:/srv/a b:c=d\n";
	assert_true(tw_vbd_parse(line, &vbd));
	assert_int_equal(vbd.pid, 123);
	assert_int_equal(vbd.minor, 0);
	assert_int_equal(vbd.state, 0x2a);
	assert_string_equal(vbd.type, "aio");
	assert_string_equal(vbd.path, "/srv/a b:c=d");
}

static void a_line_of_nothing_open_tells_of_none(void **state)
{
	(void)state;
	static const char *const lines[] = { "", "\n", "pid=1\n", "minor=3\n", "pid=1 minor=2",
		"pid=1 minor=2 state=0", "pid=x minor=2 state=0 args=aio:/a",
		"pid=1 minor=99999999999 state=0 args=aio:/a", "pid=1 minor=2 state=0 args=nothing",
		"xpid=1 minor=2 state=0 args=aio:/a" };
	for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++) {
		char line[128];
		struct tw_vbd vbd;
		snprintf(line, sizeof(line), "%s", lines[i]);
		assert_false(tw_vbd_parse(line, &vbd));
	}
}

static void targets(void **state)
{
	(void)state;
	int pid, minor;
	assert_true(tw_vbd_parse_target("12:3", &pid, &minor));
	assert_int_equal(pid, 12);
	assert_int_equal(minor, 3);
	assert_true(tw_vbd_parse_target("auto", &pid, &minor));
	assert_int_equal(pid, -1);
	static const char *const wrong[] = { "", "12", ":3", "12:", "12:3:4", "-1:2", "0:1", "a:b", "1 :2" };
	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
		assert_false(tw_vbd_parse_target(wrong[i], &pid, &minor));
}

static void a_socket_tells_of_the_disk_behind_it(void **state)
{
	(void)state;
	int pid, minor;
	assert_true(tw_vbd_parse_socket("/run/blktap-control/nbd4711.12", &pid, &minor));
	assert_int_equal(pid, 4711);
	assert_int_equal(minor, 12);
	assert_true(tw_vbd_parse_socket("/var/run/blktap-control/nbd1.0", &pid, &minor));
	assert_int_equal(minor, 0);
	static const char *const wrong[] = { "", "/dev/nbd0", "/run/blktap-control/nbd", "/run/blktap-control/nbd1",
		"/run/blktap-control/nbd1.", "/run/blktap-control/nbd.1", "/run/blktap-control/nbd0.1",
		"/run/blktap-control/nbd1.2.3", "/run/blktap-control/nbd1.2 ", "/run/blktap-control/nbd1 .2",
		"/run/blktap-control/nbd-1.2", "/run/blktap-control/nbd99999999999999999999.2",
		"/run/blktap-control/nbd00000000000000000000000000000001.2" };
	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
		assert_false(tw_vbd_parse_socket(wrong[i], &pid, &minor));
}

static void finds(int pid, int minor, const char *file, const char *target, const char *path)
{
	TW_AUTO_FREE char *its_target = NULL;
	TW_AUTO_FREE char *its_path = NULL;
	assert_null(tw_tapctl_find(tap_ctl, pid, minor, file, &its_target, &its_path));
	assert_string_equal(its_target, target);
	assert_string_equal(its_path, path);
}

static void a_disk_is_found_by_what_is_known_of_it(void **state)
{
	(void)state;
	char ours[32];
	snprintf(ours, sizeof(ours), "%d:4", getpid());
	finds(getpid(), 4, NULL, ours, image);
	finds(1, 9, image, "1:9", "/dev/null");
	finds(-1, 4, "/dev/null", ours, image);
	finds(-1, 9, NULL, "1:9", "/dev/null");
	finds(-1, -1, image, ours, image);
}

static void does_not_find(int pid, int minor, const char *file, enum tw_code code, const char *words)
{
	char *target, *path;
	struct tw_error *err = tw_tapctl_find(tap_ctl, pid, minor, file, &target, &path);
	assert_non_null(err);
	assert_int_equal(tw_error_code(err), code);
	assert_non_null(strstr(tw_error_message(err), words));
	assert_true(!target && !path);
	tw_error_destroy(err);
}

static void a_disk_that_is_not_found_is_told(void **state)
{
	(void)state;
	does_not_find(2, 9, NULL, TW_UNAVAILABLE, "no such tapdisk");
	does_not_find(-1, 5, image, TW_UNAVAILABLE, "no such tapdisk");
	does_not_find(-1, -1, "/etc/passwd", TW_UNAVAILABLE, "no tapdisk serves /etc/passwd");
	does_not_find(-1, -1, "/nonexistent", TW_IO, "/nonexistent");
	does_not_find(-1, -1, NULL, TW_IO, "its image");
	put("args", "vhd:/srv/a.vhd\n");
	does_not_find(-1, 4, NULL, TW_UNSUPPORTED, "vhd:/srv/a.vhd");
	put("fail", "list\n");
	does_not_find(-1, 9, NULL, TW_UNAVAILABLE, "failed");
}

/* --- the change --- */

/* What was done, without the questions that wake a tapdisk: on a busy machine the script is slow, too. */
static const char *steps(void)
{
	static char text[4096];
	char line[512];
	char path[80];
	snprintf(path, sizeof(path), "%s/log", dir);
	FILE *file = fopen(path, "r");
	assert_non_null(file);
	text[0] = '\0';
	while (fgets(line, sizeof(line), file))
		if (strncmp(line, "stats ", 6) != 0)
			strncat(text, line, sizeof(text) - strlen(text) - 1);
	fclose(file);
	return text;
}

static void the_disk_is_paused_and_goes_on_with_the_mirror(void **state)
{
	(void)state;
	char said[512], pid[16], expected[256];
	assert_int_equal(change("/run/s", "auto", said), 0);
	snprintf(pid, sizeof(pid), "%d", getpid());
	snprintf(expected, sizeof(expected), "%s:4", pid);
	assert_string_equal(said, expected);
	snprintf(expected, sizeof(expected),
		"list\npause -p %s -m 4\nunpause -p %s -m 4 -2 nbd:/run/s\n", pid, pid);
	assert_string_equal(steps(), expected);
	assert_string_equal(get("state"), "0\n");
	assert_false(exists(mark));
}

static void the_mirror_is_taken_away(void **state)
{
	(void)state;
	assert_int_equal(change(NULL, "auto", NULL), 0);
	assert_non_null(strstr(get("log"), "-2 null\n"));
}

static void another_tapdisk_is_left_alone(void **state)
{
	(void)state;
	char said[512];
	assert_int_equal(change("/s", "1:7", said), TW_SWITCH_ABSENT);
	assert_int_equal(change("/s", "1:9", said), TW_SWITCH_REFUSED);
	assert_non_null(strstr(said, "/dev/null"));
	put("args", "aio:/etc/passwd\n");
	assert_int_equal(change("/s", "auto", said), TW_SWITCH_ABSENT);
	assert_null(strstr(get("log"), "pause"));
}

static void another_type_is_refused(void **state)
{
	(void)state;
	char args[128];
	snprintf(args, sizeof(args), "vhd:%s\n", image);
	put("args", args);
	assert_int_equal(change("/s", "auto", NULL), TW_SWITCH_REFUSED);
	assert_null(strstr(get("log"), "pause"));
}

static void what_somebody_else_has_paused_stays_paused(void **state)
{
	(void)state;
	put("state", "0x2a\n");
	assert_int_equal(change("/s", "auto", NULL), TW_SWITCH_BUSY);
	assert_null(strstr(get("log"), "pause"));
}

static void what_we_have_paused_goes_on(void **state)
{
	(void)state;
	char text[32];
	put("state", "0x2a\n");
	snprintf(text, sizeof(text), "%d:4\n", getpid());
	put("mark", text);
	assert_int_equal(change("/s", "auto", NULL), 0);
	assert_string_equal(get("state"), "0\n");
	assert_false(exists(mark));
}

static void the_mark_is_of_one_disk(void **state)
{
	(void)state;
	put("state", "0x2a\n");
	put("mark", "1:4\n");
	assert_int_equal(change("/s", "auto", NULL), TW_SWITCH_BUSY);
}

static void a_pause_that_fails_changes_nothing(void **state)
{
	(void)state;
	put("fail", "pause\n");
	assert_int_equal(change("/s", "auto", NULL), TW_SWITCH_FAILED);
	assert_null(strstr(get("log"), "unpause"));
	assert_false(exists(mark));
}

static void a_mirror_that_fails_leaves_a_disk_that_runs(void **state)
{
	(void)state;
	put("fail", "unpause\nunpause\nunpause\nunpause\n");
	assert_int_equal(change("/s", "auto", NULL), TW_SWITCH_ALONE);
	assert_string_equal(get("state"), "0\n");
	assert_non_null(strstr(get("log"), "-2 null\n"));
	assert_false(exists(mark));
}

/* A pause that nothing wakes the tapdisk for would take ten minutes. */
static void a_tapdisk_that_sleeps_is_woken(void **state)
{
	(void)state;
	put("asleep", "");
	assert_int_equal(change("/s", "auto", NULL), 0);
	assert_string_equal(get("state"), "0\n");
}

/* The guest waits for it. */
static void a_tap_ctl_that_does_not_come_back_is_ended(void **state)
{
	(void)state;
	put("hung", "");
	assert_int_equal(change("/s", "auto", NULL), 0);
	assert_string_equal(get("state"), "0\n");
	assert_false(exists(mark));
}

static void a_disk_that_somebody_else_has_let_go_on_is_left_so(void **state)
{
	(void)state;
	put("theirs", "");
	assert_int_equal(change("/s", "auto", NULL), TW_SWITCH_ALONE);
	assert_string_equal(get("state"), "0\n");
}

static void a_backend_says_which_disk_it_has(void **state)
{
	int pid, minor;
	(void)state;
	assert_true(tw_vbd_of_backend("vbd", "/run/blktap-control/nbd7.3", "", &pid, &minor));
	assert_true(pid == 7 && minor == 3);
	assert_true(tw_vbd_of_backend("vbd3", "/dev/sm/x", "fe:1f", &pid, &minor));
	assert_true(pid == -1 && minor == 31);
	assert_false(tw_vbd_of_backend("vbd", "/dev/sm/x", "fe:1f", &pid, &minor));
	assert_false(tw_vbd_of_backend("vbd3", "", "fe", &pid, &minor));
	assert_false(tw_vbd_of_backend("vbd3", "", "fe:", &pid, &minor));
	assert_false(tw_vbd_of_backend("vbd3", "", "fe:1g", &pid, &minor));
}

/* SIGTERM, as a service manager sends it to all, does not leave the guest paused. */
static void the_process_comes_to_its_end(void **state)
{
	(void)state;
	const struct tw_mirror_switch what = { tap_ctl, "auto", image, "/s", mark };
	const char *argv[TW_SWITCH_ARGS];
	put("fail", "unpause\nunpause\nunpause\nunpause\nunpause\n");
	tw_tapctl_args(&what, argv);
	pid_t pid = fork();
	if (pid == 0) {
		dup2(open("/dev/null", O_WRONLY), STDOUT_FILENO);
		tw_tapctl_main(TW_SWITCH_ARGS - 1, (char **)argv);
		_exit(99);
	}
	while (!strstr(get("log"), "unpause"))
		usleep(1000);
	kill(pid, SIGTERM);
	int status;
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), TW_SWITCH_ALONE);
	assert_string_equal(get("state"), "0\n");
}

static void other_programs_arguments_are_not_taken(void **state)
{
	(void)state;
	const char *argv[] = { "tapwire", "attach", "a", "b", "c", "d", NULL };
	tw_tapctl_main(TW_SWITCH_ARGS - 1, (char **)argv); /* returns */
}

/* --- images --- */

static void refused_with(const char *path, const char *word)
{
	struct tw_error *err = tw_image_check_allocated(path);
	assert_non_null(err);
	assert_non_null(strstr(tw_error_message(err), word));
	tw_error_destroy(err);
}

static void an_image_with_holes_gets_no_mirror(void **state)
{
	(void)state;
	assert_null(tw_image_check_allocated(image));
	int fd = open(image, O_RDWR);
	assert_int_equal(ftruncate(fd, 2 << 20), 0); /* a hole at the end, */
	refused_with(image, "holes");
	assert_int_equal(posix_fallocate(fd, 0, 2 << 20), 0);
	assert_null(tw_image_check_allocated(image));
	assert_int_equal(
		fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 1 << 20, 65536), 0);
	close(fd);
	refused_with(image, "holes"); /* and one in the middle */
	assert_int_equal(change("/s", "auto", NULL), TW_SWITCH_REFUSED);
	assert_null(strstr(get("log"), "pause"));
	assert_int_equal(change(NULL, "auto", NULL), 0); /* it may be taken away */
}

static void what_is_no_image_gets_no_mirror(void **state)
{
	(void)state;
	refused_with(dir, "neither");
	refused_with("/nonexistent", "No such file");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_line_tells_of_a_disk),
		cmocka_unit_test(a_line_of_nothing_open_tells_of_none),
		cmocka_unit_test(targets),
		cmocka_unit_test(a_socket_tells_of_the_disk_behind_it),
		cmocka_unit_test(a_backend_says_which_disk_it_has),
		TEST(a_disk_is_found_by_what_is_known_of_it),
		TEST(a_disk_that_is_not_found_is_told),
		TEST(the_disk_is_paused_and_goes_on_with_the_mirror),
		TEST(the_mirror_is_taken_away),
		TEST(another_tapdisk_is_left_alone),
		TEST(another_type_is_refused),
		TEST(what_somebody_else_has_paused_stays_paused),
		TEST(what_we_have_paused_goes_on),
		TEST(the_mark_is_of_one_disk),
		TEST(a_pause_that_fails_changes_nothing),
		TEST(a_mirror_that_fails_leaves_a_disk_that_runs),
		TEST(a_tapdisk_that_sleeps_is_woken),
		TEST(a_tap_ctl_that_does_not_come_back_is_ended),
		TEST(a_disk_that_somebody_else_has_let_go_on_is_left_so),
		TEST(the_process_comes_to_its_end),
		TEST(other_programs_arguments_are_not_taken),
		TEST(an_image_with_holes_gets_no_mirror),
		TEST(what_is_no_image_gets_no_mirror),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
