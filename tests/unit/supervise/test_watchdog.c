/* SPDX-License-Identifier: BSD-3-Clause */
/* The watchdog lets live what gets on, and kills what does not. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "supervise/watchdog.h"

#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define BOUND_MS 300

static char path[] = "/tmp/tapwire-test-watchdog-XXXXXX";
static struct sink_progress *page;
static struct tw_watchdog *dog;

static void sleep_ms(unsigned ms)
{
	nanosleep(&(struct timespec){ ms / 1000, (long)(ms % 1000) * 1000000L }, NULL);
}

static int make_page(void **state)
{
	(void)state;
	int fd = mkstemp(path);
	if (fd < 0 || ftruncate(fd, SINK_PROGRESS_BYTES) < 0)
		return -1;
	page = mmap(NULL, SINK_PROGRESS_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	close(fd);
	return page == MAP_FAILED ? -1 : 0;
}

static int remove_page(void **state)
{
	(void)state;
	munmap(page, SINK_PROGRESS_BYTES);
	return unlink(path);
}

static int setup(void **state)
{
	(void)state;
	memset(page, 0, sizeof(*page));
	page->magic = SINK_PROGRESS_MAGIC;
	struct tw_error *err = tw_watchdog_create(BOUND_MS, &dog);
	return err ? -1 : 0;
}

static int teardown(void **state)
{
	(void)state;
	tw_watchdog_destroy(dog);
	return 0;
}

/* A process with a heart, if it is to have one, and that ends when its parent does. */
static pid_t start(bool heart)
{
	pid_t pid = fork();
	if (pid != 0)
		return pid;
	while (getppid() != 1) {
		if (heart)
			page->beats++;
		sleep_ms(20);
	}
	_exit(0);
}

/* Whether it ended by itself within the time. */
static bool ends_within(pid_t pid, unsigned ms)
{
	for (unsigned waited = 0; waited < ms; waited += 10) {
		int status;
		if (waitpid(pid, &status, WNOHANG) == pid) {
			assert_true(WIFSIGNALED(status));
			assert_int_equal(WTERMSIG(status), SIGKILL);
			return true;
		}
		sleep_ms(10);
	}
	return false;
}

static void end(pid_t pid)
{
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
}

static void what_beats_lives(void **state)
{
	(void)state;
	pid_t pid = start(true);
	assert_null(tw_watchdog_watch(dog, pid, path));
	assert_false(ends_within(pid, 4 * BOUND_MS));
	assert_int_equal(tw_watchdog_unwatch(dog), TW_WATCHDOG_WELL);
	end(pid);
}

static void what_stops_is_killed(void **state)
{
	(void)state;
	pid_t pid = start(true);
	assert_null(tw_watchdog_watch(dog, pid, path));
	kill(pid, SIGSTOP);
	assert_true(ends_within(pid, 20 * BOUND_MS));
	assert_int_equal(tw_watchdog_unwatch(dog), TW_WATCHDOG_NO_BEAT);
}

static void a_request_that_does_not_end_is_enough(void **state)
{
	(void)state;
	pid_t pid = start(true);
	page->begun = 7;
	page->finished = 6;
	assert_null(tw_watchdog_watch(dog, pid, path));
	assert_true(ends_within(pid, 20 * BOUND_MS));
	assert_int_equal(tw_watchdog_unwatch(dog), TW_WATCHDOG_PENDING);
}

static void requests_that_end_are_none(void **state)
{
	(void)state;
	pid_t pid = start(true);
	page->begun = 1;
	assert_null(tw_watchdog_watch(dog, pid, path));
	for (int i = 0; i < 40; i++) { /* always one under way, never the same */
		assert_false(ends_within(pid, BOUND_MS / 10));
		page->begun++;
		page->finished++;
	}
	assert_int_equal(tw_watchdog_unwatch(dog), TW_WATCHDOG_WELL);
	end(pid);
}

static void what_is_not_watched_any_more_may_stop(void **state)
{
	(void)state;
	pid_t pid = start(false);
	assert_null(tw_watchdog_watch(dog, pid, path));
	assert_int_equal(tw_watchdog_unwatch(dog), TW_WATCHDOG_WELL);
	assert_false(ends_within(pid, 4 * BOUND_MS));
	end(pid);
}

static void the_next_one_is_watched_too(void **state)
{
	(void)state;
	for (int i = 0; i < 2; i++) {
		pid_t pid = start(false);
		assert_null(tw_watchdog_watch(dog, pid, path));
		assert_true(ends_within(pid, 20 * BOUND_MS));
		assert_int_equal(tw_watchdog_unwatch(dog), TW_WATCHDOG_NO_BEAT);
	}
}

static void counts_are_the_pages(void **state)
{
	(void)state;
	struct tw_sink_counts counts;
	assert_false(tw_watchdog_counts(dog, &counts));
	pid_t pid = start(true);
	page->reads = 3;
	page->sessions = 2;
	assert_null(tw_watchdog_watch(dog, pid, path));
	assert_true(tw_watchdog_counts(dog, &counts));
	assert_int_equal(counts.reads, 3);
	assert_int_equal(counts.sessions, 2);
	end(pid);
}

static void another_file_is_refused(void **state)
{
	(void)state;
	page->magic = 1;
	struct tw_error *err = tw_watchdog_watch(dog, getpid(), path);
	assert_non_null(err);
	assert_int_equal(tw_error_code(err), TW_BAD_DATA);
	tw_error_destroy(err);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(what_beats_lives, setup, teardown),
		cmocka_unit_test_setup_teardown(what_stops_is_killed, setup, teardown),
		cmocka_unit_test_setup_teardown(a_request_that_does_not_end_is_enough, setup, teardown),
		cmocka_unit_test_setup_teardown(requests_that_end_are_none, setup, teardown),
		cmocka_unit_test_setup_teardown(what_is_not_watched_any_more_may_stop, setup, teardown),
		cmocka_unit_test_setup_teardown(the_next_one_is_watched_too, setup, teardown),
		cmocka_unit_test_setup_teardown(counts_are_the_pages, setup, teardown),
		cmocka_unit_test_setup_teardown(another_file_is_refused, setup, teardown),
	};
	return cmocka_run_group_tests(tests, make_page, remove_page);
}
