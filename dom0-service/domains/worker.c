/* SPDX-License-Identifier: BSD-3-Clause */
#include "domains/worker.h"

#include <pthread.h>
#include <signal.h>
#include <stdlib.h>

struct tw_worker {
	uv_async_t async;
	void (*work)(void *arg);
	void (*done)(void *arg);
	void *arg;
	pthread_t thread;
	pthread_mutex_t mutex;
	pthread_cond_t cond;
	bool wanted; /* the three are under the mutex */
	bool finished;
	bool end;
	bool busy; /* the loop's own */
	uint64_t since;
};

static void *run(void *arg)
{
	struct tw_worker *worker = arg;
	pthread_mutex_lock(&worker->mutex);
	for (;;) {
		while (!worker->wanted && !worker->end)
			pthread_cond_wait(&worker->cond, &worker->mutex);
		if (worker->end)
			break;
		worker->wanted = false;
		pthread_mutex_unlock(&worker->mutex);
		worker->work(worker->arg);
		pthread_mutex_lock(&worker->mutex);
		worker->finished = true;
		if (!worker->end)
			uv_async_send(&worker->async);
	}
	pthread_mutex_unlock(&worker->mutex);
	return NULL;
}

static void on_async(uv_async_t *async)
{
	struct tw_worker *worker = async->data;
	pthread_mutex_lock(&worker->mutex);
	bool finished = worker->finished;
	worker->finished = false;
	pthread_mutex_unlock(&worker->mutex);
	if (!finished)
		return;
	worker->busy = false;
	worker->done(worker->arg);
}

struct tw_error *tw_worker_create(uv_loop_t *loop, void (*work)(void *arg), void (*done)(void *arg), void *arg,
	struct tw_worker **out)
{
	struct tw_worker *worker = calloc(1, sizeof(*worker));
	sigset_t all, before;
	if (!worker)
		return tw_error_nomem();
	worker->work = work;
	worker->done = done;
	worker->arg = arg;
	pthread_mutex_init(&worker->mutex, NULL);
	pthread_cond_init(&worker->cond, NULL);
	uv_async_init(loop, &worker->async, on_async);
	worker->async.data = worker;
	/* Signals are the loop's. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	int ret = pthread_create(&worker->thread, NULL, run, worker);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (ret) {
		worker->end = true;
		uv_close((uv_handle_t *)&worker->async, (uv_close_cb)free);
		return tw_error_errno(ret, "thread");
	}
	*out = worker;
	return NULL;
}

void tw_worker_run(struct tw_worker *worker)
{
	worker->busy = true;
	worker->since = uv_hrtime();
	pthread_mutex_lock(&worker->mutex);
	worker->wanted = true;
	pthread_cond_signal(&worker->cond);
	pthread_mutex_unlock(&worker->mutex);
}

bool tw_worker_busy(const struct tw_worker *worker)
{
	return worker->busy;
}

uint64_t tw_worker_busy_ms(const struct tw_worker *worker)
{
	return worker->busy ? (uv_hrtime() - worker->since) / 1000000 + 1 : 0;
}

static void on_closed(uv_handle_t *handle)
{
	struct tw_worker *worker = handle->data;
	pthread_mutex_destroy(&worker->mutex);
	pthread_cond_destroy(&worker->cond);
	free(worker);
}

static void leave_behind(uv_handle_t *handle)
{
	(void)handle;
}

bool tw_worker_destroy(struct tw_worker *worker)
{
	if (!worker)
		return true;
	pthread_mutex_lock(&worker->mutex);
	bool hangs = worker->busy && !worker->finished;
	worker->end = true;
	pthread_cond_signal(&worker->cond);
	pthread_mutex_unlock(&worker->mutex);
	if (hangs)
		pthread_detach(worker->thread);
	else
		pthread_join(worker->thread, NULL);
	uv_close((uv_handle_t *)&worker->async, hangs ? leave_behind : on_closed);
	return !hangs;
}
