/* SPDX-License-Identifier: BSD-3-Clause */
/* A supervised process: readiness, restart with a pause, orderly stop, kill, death with the
 * supervisor. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "supervise/child.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define LIMIT_MS 10000 /* no test takes so long unless it has failed */

struct log {
	struct tw_child *child;
	uv_timer_t limit;
	unsigned ready;
	unsigned ended;
	unsigned stopped;
	unsigned end_after; /* let it be started again until so many ends */
	int status;
	int stop_status;
	bool was_ready;
	bool stop_when_ready;
	unsigned probes;
	char lines[256]; /* with a bar behind each */
};

static uv_loop_t loop;

static void finish(struct log *log)
{
	uv_timer_stop(&log->limit);
	uv_stop(&loop);
}

static void on_limit(uv_timer_t *timer)
{
	(void)timer;
	fail_msg("nothing happened for %d ms", LIMIT_MS);
}

static void ready(void *arg)
{
	struct log *log = arg;
	log->ready++;
	if (log->stop_when_ready)
		tw_child_stop(log->child, 300);
}

static bool ended(void *arg, int status, bool was_ready)
{
	struct log *log = arg;
	log->ended++;
	log->status = status;
	log->was_ready = was_ready;
	if (log->ended < log->end_after)
		return true;
	finish(log);
	return false;
}

static void stopped(void *arg, int status)
{
	struct log *log = arg;
	log->stopped++;
	log->stop_status = status;
	finish(log);
}

static bool third_time(void *arg)
{
	struct log *log = arg;
	return ++log->probes == 3;
}

static void line_came(void *arg, const char *line)
{
	struct log *log = arg;
	snprintf(log->lines + strlen(log->lines), sizeof(log->lines) - strlen(log->lines), "%s|", line);
}

static const struct tw_child_ops talk_ops = {
	.ready = ready, .ended = ended, .stopped = stopped, .line = line_came
};
static const struct tw_child_ops line_ops = { .ready = ready, .ended = ended, .stopped = stopped };
static const struct tw_child_ops probe_ops = {
	.ready = ready,
	.ended = ended,
	.stopped = stopped,
	.probe = third_time,
};

static void run(struct log *log, const struct tw_child_ops *ops, const char *script)
{
	const char *const argv[] = { "/bin/sh", "-c", script, NULL };
	assert_int_equal(uv_loop_init(&loop), 0);
	uv_timer_init(&loop, &log->limit);
	uv_timer_start(&log->limit, on_limit, LIMIT_MS, 0);
	assert_null(tw_child_create(&loop, "sh", argv, ops, log, &log->child));
	tw_child_start(log->child);
	uv_run(&loop, UV_RUN_DEFAULT);
	assert_int_equal(tw_child_state(log->child), TW_CHILD_IDLE);
	assert_int_equal(tw_child_pid(log->child), 0);
}

static void end(struct log *log)
{
	tw_child_destroy(log->child);
	uv_close((uv_handle_t *)&log->limit, NULL);
	while (uv_run(&loop, UV_RUN_DEFAULT)) /* finish() may have asked it to stop once more */
		;
	assert_int_equal(uv_loop_close(&loop), 0);
}

static void a_line_on_the_descriptor_means_ready(void **state)
{
	(void)state;
	struct log log = { 0 };
	run(&log, &line_ops, "echo ready >&3; exit 7");
	/* The line and the end may be seen in either order; a line that came is never lost on a
	 * child that lives. */
	assert_int_equal(log.ended, 1);
	assert_int_equal(log.status, 7);
	end(&log);
}

static void what_it_says_is_handed_on_to_its_last_word(void **state)
{
	(void)state;
	struct log log = { .stop_when_ready = true };
	run(&log, &talk_ops,
		"trap 'printf \"last\\nhalf\" >&3; exit 0' TERM; printf 'a b\\nrea' >&3; sleep 0.05; echo dy >&3; "
		"while :; do sleep 0.01; done");
	assert_int_equal(log.ready, 1);
	assert_int_equal(log.stop_status, 0);
	assert_string_equal(log.lines, "a b|last|");
	end(&log);
}

static void limits_are_the_childs(void **state)
{
	(void)state;
	struct log log = { 0 };
	const char *const argv[] = { "/bin/sh", "-c", "printf '%s %s\\n' $(ulimit -d) $(nice) >&3", NULL };
	assert_int_equal(uv_loop_init(&loop), 0);
	uv_timer_init(&loop, &log.limit);
	uv_timer_start(&log.limit, on_limit, LIMIT_MS, 0);
	assert_null(tw_child_create(&loop, "sh", argv, &talk_ops, &log, &log.child));
	tw_child_limit(log.child, 64 << 20, 7);
	tw_child_start(log.child);
	uv_run(&loop, UV_RUN_DEFAULT);
	assert_string_equal(log.lines, "65536 7|"); /* KiB */
	end(&log);
}

static void without_the_line_it_is_not_ready(void **state)
{
	(void)state;
	struct log log = { 0 };
	run(&log, &line_ops, "exec 3>&-; sleep 0.1; exit 3");
	assert_int_equal(log.ready, 0);
	assert_false(log.was_ready);
	assert_int_equal(log.status, 3);
	end(&log);
}

static void sigterm_ends_it_and_is_no_failure(void **state)
{
	(void)state;
	struct log log = { .stop_when_ready = true };
	run(&log, &line_ops, "trap 'exit 5' TERM; echo ready >&3; while :; do sleep 0.01; done");
	assert_int_equal(log.ready, 1);
	assert_int_equal(log.ended, 0);
	assert_int_equal(log.stopped, 1);
	assert_int_equal(log.stop_status, 5);
	end(&log);
}

static void one_that_does_not_listen_is_killed(void **state)
{
	(void)state;
	struct log log = { .stop_when_ready = true };
	run(&log, &line_ops, "trap '' TERM; echo ready >&3; while :; do sleep 0.01; done");
	assert_int_equal(log.stopped, 1);
	assert_int_equal(log.stop_status, 128 + SIGKILL);
	end(&log);
}

static void the_probe_is_asked_until_it_says_yes(void **state)
{
	(void)state;
	struct log log = { .stop_when_ready = true };
	run(&log, &probe_ops, "exec sleep 10");
	assert_int_equal(log.probes, 3);
	assert_int_equal(log.ready, 1);
	assert_int_equal(log.stop_status, 128 + SIGTERM);
	end(&log);
}

static void what_dies_is_started_again_after_growing_pauses(void **state)
{
	(void)state;
	struct log log = { .end_after = 3 };
	uint64_t before = uv_hrtime();
	run(&log, &line_ops, "kill -9 $$");
	uint64_t ms = (uv_hrtime() - before) / 1000000;
	assert_int_equal(log.ended, 3);
	assert_int_equal(log.status, 128 + SIGKILL);
	assert_int_equal(tw_child_restarts(log.child), 2);
	assert_true(ms >= 100 + 200); /* the first two pauses, never less */
	end(&log);
}

static void a_program_that_is_not_there_counts_as_an_end(void **state)
{
	(void)state;
	const char *const argv[] = { "/nonexistent/program", NULL };
	struct log log = { 0 };
	assert_int_equal(uv_loop_init(&loop), 0);
	uv_timer_init(&loop, &log.limit);
	uv_timer_start(&log.limit, on_limit, LIMIT_MS, 0);
	assert_null(tw_child_create(&loop, "none", argv, &line_ops, &log, &log.child));
	tw_child_start(log.child);
	uv_run(&loop, UV_RUN_DEFAULT);
	assert_int_equal(log.ended, 1);
	assert_int_equal(log.status, 127);
	end(&log);
}

static void stopping_what_does_not_run_is_told_at_once(void **state)
{
	(void)state;
	struct log log = { 0 };
	run(&log, &line_ops, "exit 0");
	tw_child_stop(log.child, 100);
	assert_int_equal(log.stopped, 1);
	assert_int_equal(log.stop_status, -1);
	end(&log);
}

/* The supervisor of this test is a process of its own, so that it can be killed. */
static void supervisor(int pid_pipe)
{
	struct log log = { 0 };
	const char *const argv[] = { "/bin/sh", "-c", "echo $$ >&2; exec sleep 60", NULL };
	dup2(pid_pipe, STDERR_FILENO);
	uv_loop_init(&loop);
	struct tw_error *err = tw_child_create(&loop, "sh", argv, &line_ops, &log, &log.child);
	if (err)
		_exit(1);
	tw_child_start(log.child);
	uv_run(&loop, UV_RUN_DEFAULT);
	_exit(0);
}

static void a_child_dies_with_its_supervisor(void **state)
{
	(void)state;
	int fds[2];
	char text[32] = "";
	assert_int_equal(pipe(fds), 0);
	pid_t parent = fork();
	if (parent == 0)
		supervisor(fds[1]);
	close(fds[1]);
	assert_true(read(fds[0], text, sizeof(text) - 1) > 0);
	pid_t child = (pid_t)atoi(text);
	assert_true(child > 1);
	assert_int_equal(kill(child, 0), 0);
	kill(parent, SIGKILL);
	waitpid(parent, NULL, 0);
	/* The child held the pipe's other end: when it is gone, there is an end of file. */
	alarm(LIMIT_MS / 1000);
	while (read(fds[0], text, sizeof(text)) > 0)
		;
	alarm(0);
	close(fds[0]);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_line_on_the_descriptor_means_ready),
		cmocka_unit_test(what_it_says_is_handed_on_to_its_last_word),
		cmocka_unit_test(limits_are_the_childs),
		cmocka_unit_test(without_the_line_it_is_not_ready),
		cmocka_unit_test(sigterm_ends_it_and_is_no_failure),
		cmocka_unit_test(one_that_does_not_listen_is_killed),
		cmocka_unit_test(the_probe_is_asked_until_it_says_yes),
		cmocka_unit_test(what_dies_is_started_again_after_growing_pauses),
		cmocka_unit_test(a_program_that_is_not_there_counts_as_an_end),
		cmocka_unit_test(stopping_what_does_not_run_is_told_at_once),
		cmocka_unit_test(a_child_dies_with_its_supervisor),
	};
	tw_child_main(argc, argv);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
