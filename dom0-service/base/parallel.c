/* SPDX-License-Identifier: BSD-3-Clause */
#include "base/parallel.h"

#include <pthread.h>
#include <stdbool.h>
#include <unistd.h>

unsigned tw_parallel_width(void)
{
	long n = sysconf(_SC_NPROCESSORS_ONLN);
	if (n < 1)
		return 1;
	return n < TW_PARALLEL_MAX ? (unsigned)n : TW_PARALLEL_MAX;
}

struct job {
	pthread_t thread;
	bool running;
	tw_work_fn work;
	void *arg;
	unsigned i;
	struct tw_error *err;
};

static void *run(void *arg)
{
	struct job *job = arg;
	job->err = job->work(job->arg, job->i);
	return NULL;
}

struct tw_error *tw_parallel(unsigned n, tw_work_fn work, void *arg)
{
	struct job jobs[TW_PARALLEL_MAX];
	struct tw_error *first = NULL;
	if (n > TW_PARALLEL_MAX)
		n = TW_PARALLEL_MAX;
	for (unsigned i = 0; i < n; i++) {
		jobs[i] = (struct job){.work = work, .arg = arg, .i = i};
		jobs[i].running = i && !pthread_create(&jobs[i].thread, NULL, run, &jobs[i]);
	}
	for (unsigned i = 0; i < n; i++)
		if (!jobs[i].running)
			run(&jobs[i]);
	for (unsigned i = 0; i < n; i++) {
		if (jobs[i].running)
			pthread_join(jobs[i].thread, NULL);
		if (!first)
			first = jobs[i].err;
		else
			tw_error_destroy(jobs[i].err);
	}
	return first;
}
