/* SPDX-License-Identifier: BSD-3-Clause */
/* Publishing makes no system call unless the consumer sleeps: the kernel is told to kill whoever
 * makes one. */
#include "ring_fixture.h"

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#define ALLOWED(nr)                                                                                \
	BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, nr, 0, 1),                                             \
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)

/* The clock is no system call where the kernel maps it into the process, which it does not on every
 * machine. */
static void forbid_system_calls(void)
{
	struct sock_filter filter[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		ALLOWED(SYS_clock_gettime),
		ALLOWED(SYS_exit_group),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
	};
	const struct sock_fprog program = {sizeof(filter) / sizeof(*filter), filter};
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 ||
		prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) < 0)
		_exit(1);
}

/* Writes of all kinds and sizes, until the ring is full and on into the dirty map. */
static void publish_much(struct tw_ring *ring)
{
	static const char payload[32 * TW_SECTOR_SIZE];
	for (uint64_t i = 0; i < 64; i++) {
		tw_ring_publish(ring, 0, i * 64, 1, payload);
		tw_ring_publish(ring, 0, i * 64, 31, payload);
		tw_ring_publish(ring, TW_RECORD_ZEROES, i * 64, 8, NULL);
		tw_ring_publish(ring, TW_RECORD_FLUSH, 0, 0, NULL);
		tw_ring_poll(ring);
	}
}

/* How a child ends that publishes under the filter. */
static int publish_silently(struct tw_ring *ring)
{
	fflush(NULL);
	const pid_t pid = fork();
	if (pid == 0) {
		forbid_system_calls();
		publish_much(ring);
		/* Not _exit: a sanitizer has calls of its own to make before it. */
		syscall(SYS_exit_group, 0);
	}
	int status;
	assert_int_equal(waitpid(pid, &status, 0), pid);
	return status;
}

static void no_system_call_while_the_consumer_is_awake(void **state)
{
	struct tw_ring *ring = new_ring(*state);
	struct tw_ring_reader *r = new_reader(*state);
	assert_int_equal(publish_silently(ring), 0);
	struct tw_ring_stats stats;
	tw_ring_stats(ring, &stats);
	assert_true(stats.records > 4 && stats.missed > 4);
	tw_ring_reader_destroy(r);
	tw_ring_destroy(ring);
}

static void no_system_call_without_a_consumer(void **state)
{
	struct tw_ring *ring = new_ring(*state);
	assert_int_equal(publish_silently(ring), 0);
	tw_ring_destroy(ring);
}

/* The one that there has to be; and the filter works. */
static void the_bell_is_a_system_call(void **state)
{
	struct tw_ring *ring = new_ring(*state);
	struct tw_ring_reader *r = new_reader(*state);
	assert_int_equal(tw_ring_arm(r), 0);
	const int status = publish_silently(ring);
	assert_true(WIFSIGNALED(status));
	assert_int_equal(WTERMSIG(status), SIGSYS);
	tw_ring_reader_destroy(r);
	tw_ring_destroy(ring);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		ring_test(no_system_call_while_the_consumer_is_awake),
		ring_test(no_system_call_without_a_consumer),
		ring_test(the_bell_is_a_system_call),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
