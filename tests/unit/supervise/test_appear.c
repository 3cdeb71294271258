/* SPDX-License-Identifier: BSD-3-Clause */
/* Waiting for files to appear. */
#include "../check.h"

#include "supervise/appear.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define LIMIT_MS 10000

static uv_loop_t loop;
static char scratch[64];
static struct tw_appear *appear;
static uv_timer_t step, limit;
static int told;

static int set_up(void **state)
{
	(void)state;
	strcpy(scratch, "/tmp/tapwire-appear-XXXXXX");
	told = 0;
	if (!mkdtemp(scratch) || chdir(scratch) < 0 || uv_loop_init(&loop) < 0)
		return -1;
	uv_timer_init(&loop, &step);
	return uv_timer_init(&loop, &limit);
}

static int tear_down(void **state)
{
	char command[128];
	(void)state;
	uv_close((uv_handle_t *)&step, NULL);
	uv_close((uv_handle_t *)&limit, NULL);
	uv_run(&loop, UV_RUN_DEFAULT);
	snprintf(command, sizeof(command), "rm -rf '%s'", scratch);
	return uv_loop_close(&loop) == 0 ? system(command) : -1;
}

static char *in_scratch(const char *name)
{
	static char path[2][128];
	static int turn;
	turn = !turn;
	snprintf(path[turn], sizeof(path[turn]), "%s/%s", scratch, name);
	return path[turn];
}

static void touch(const char *name)
{
	int fd = open(name, O_CREAT | O_WRONLY, 0600);
	assert_true(fd >= 0);
	close(fd);
}

static void there(void *arg)
{
	told += *(const int *)arg;
	uv_stop(&loop);
}

static void on_limit(uv_timer_t *timer)
{
	(void)timer;
	fail_msg("nothing appeared for %d ms", LIMIT_MS);
}

static void run_until_told(void)
{
	uv_timer_start(&limit, on_limit, LIMIT_MS, 0);
	uv_run(&loop, UV_RUN_DEFAULT);
	uv_timer_stop(&limit);
}

static void a_file_that_is_there_and_one_that_comes_are_told_of_once(void **state)
{
	static const int one = 1, ten = 10;
	struct tw_appear_wait *a, *b;
	(void)state;
	ok(tw_appear_create(&loop, &appear));
	touch("a");
	ok(tw_appear_wait(appear, in_scratch("a"), there, (void *)&one, &a));
	ok(tw_appear_wait(appear, in_scratch("b"), there, (void *)&ten, &b));
	assert_int_equal(told, 0); /* not from within the call */
	run_until_told();
	assert_int_equal(told, 1);
	touch("temporary");
	assert_int_equal(rename("temporary", "b"), 0);
	run_until_told();
	assert_int_equal(told, 11);
	assert_int_equal(unlink("b"), 0);
	touch("b");
	uv_run(&loop, UV_RUN_NOWAIT);
	assert_int_equal(told, 11);
	tw_appear_destroy(appear);
}

static void make_it(uv_timer_t *timer)
{
	(void)timer;
	assert_int_equal(mkdir("dir", 0700), 0);
	touch("dir/file");
}

static void a_directory_that_is_not_there_yet_is_waited_for(void **state)
{
	static const int one = 1;
	struct tw_appear_wait *wait;
	(void)state;
	ok(tw_appear_create(&loop, &appear));
	ok(tw_appear_wait(appear, in_scratch("dir/file"), there, (void *)&one, &wait));
	uv_timer_start(&step, make_it, 20, 0);
	run_until_told();
	assert_int_equal(told, 1);
	tw_appear_destroy(appear);
}

static void a_directory_that_is_made_anew_is_the_same_one(void **state)
{
	static const int one = 1;
	struct tw_appear_wait *wait;
	(void)state;
	assert_int_equal(mkdir("dir", 0700), 0);
	ok(tw_appear_create(&loop, &appear));
	ok(tw_appear_wait(appear, in_scratch("dir/file"), there, (void *)&one, &wait));
	assert_int_equal(rmdir("dir"), 0);
	uv_timer_start(&step, make_it, 20, 0);
	run_until_told();
	assert_int_equal(told, 1);
	tw_appear_destroy(appear);
}

static void a_cancelled_wait_is_not_told(void **state)
{
	static const int one = 1, ten = 10;
	struct tw_appear_wait *a, *b, *c;
	(void)state;
	ok(tw_appear_create(&loop, &appear));
	ok(tw_appear_wait(appear, in_scratch("a"), there, (void *)&one, &a));
	ok(tw_appear_wait(appear, in_scratch("a"), there, (void *)&ten, &b));
	ok(tw_appear_wait(appear, in_scratch("c"), there, (void *)&one, &c));
	tw_appear_cancel(a);
	tw_appear_cancel(NULL);
	touch("a");
	run_until_told();
	assert_int_equal(told, 10);
	tw_appear_destroy(appear); /* with c waiting */
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(
			a_file_that_is_there_and_one_that_comes_are_told_of_once, set_up, tear_down),
		cmocka_unit_test_setup_teardown(
			a_directory_that_is_not_there_yet_is_waited_for, set_up, tear_down),
		cmocka_unit_test_setup_teardown(
			a_directory_that_is_made_anew_is_the_same_one, set_up, tear_down),
		cmocka_unit_test_setup_teardown(a_cancelled_wait_is_not_told, set_up, tear_down),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
