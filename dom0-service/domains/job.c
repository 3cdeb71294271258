/* SPDX-License-Identifier: BSD-3-Clause */
#include "domains/job.h"
#include "base/log.h"
#include "base/scope.h"

#include <stdlib.h>
#include <string.h>

static struct tw_error *watch_all(struct tw_job *job)
{
	static const enum tw_xs_key keys[] = { TW_XS_INTRODUCE, TW_XS_RELEASE, TW_XS_VMS };
	char path[TW_XS_PATH_MAX];
	struct tw_xs_ids ids = { .self = job->self };
	for (const char *const *kind = tw_xs_kinds; *kind; kind++) {
		strcpy(ids.kind, *kind);
		tw_xs_path(TW_XS_BACKENDS, &ids, path);
		TW_TRY(tw_store_watch(job->store, path));
	}
	for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
		tw_xs_path(keys[i], &ids, path);
		struct tw_error *err = tw_store_watch(job->store, path);
		/* A driver domain may not be let. */
		if (err && tw_error_code(err) == TW_UNAVAILABLE)
			return err;
		tw_error_destroy(err);
	}
	return NULL;
}

static struct tw_error *connect_store(struct tw_job *job)
{
	TW_TRY(tw_store_open(job->need_socket, &job->store));
	job->need_socket = tw_store_sentinel(job->store) >= 0;
	TW_TRY(tw_store_self(job->store, &job->self));
	TW_TRY(watch_all(job));
	job->opened = true;
	return NULL;
}

static struct tw_error *list_domains(struct tw_job *job)
{
	char path[TW_XS_PATH_MAX];
	TW_AUTO_FREE char **names = NULL;
	size_t n = 0;
	if (job->self != 0) /* it sees what it is let see */
		return NULL;
	tw_xs_path(TW_XS_HOMES, &(struct tw_xs_ids){ 0 }, path);
	TW_TRY(tw_store_list(job->store, path, &names, &n));
	job->domains = names ? calloc(n + 1, sizeof(*job->domains)) : NULL;
	for (size_t i = 0; job->domains && i < n; i++)
		job->domains[job->ndomains++] = (unsigned)strtoul(names[i], NULL, 10);
	return NULL;
}

/* Only a lost connection is everybody's trouble. */
static struct tw_error *tolerate(unsigned domid, bool *read, struct tw_error *err)
{
	*read = !err;
	if (!err || tw_error_code(err) == TW_UNAVAILABLE)
		return err;
	tw_log(TW_LOG_WARN, "", "domain %u: %s", domid, tw_error_message(err));
	tw_error_destroy(err);
	return NULL;
}

static struct tw_error *run(struct tw_job *job)
{
	if (!job->store)
		TW_TRY(connect_store(job));
	if (job->batch)
		TW_TRY(tw_told_write(job->batch, job->store, job->self));
	for (size_t i = 0; i < job->nguests; i++) {
		struct tw_error *err = tw_guest_read(job->store, job->self, job->domids[i], &job->guests[i]);
		TW_TRY(tolerate(job->domids[i], &job->read[i], err));
	}
	if (job->list)
		TW_TRY(tw_guest_list(job->store, job->self, &job->listed, &job->nlisted));
	return job->homes ? list_domains(job) : NULL;
}

void tw_job_run(struct tw_job *job)
{
	job->err = run(job);
}

void tw_job_reset(struct tw_job *job)
{
	for (size_t i = 0; i < job->nguests; i++) {
		tw_guest_free(job->guests[i]);
		job->guests[i] = NULL;
	}
	tw_told_batch_free(job->batch);
	tw_error_destroy(job->err);
	free(job->listed);
	free(job->domains);
	job->batch = NULL;
	job->err = NULL;
	job->listed = job->domains = NULL;
	job->nguests = job->nlisted = job->ndomains = 0;
	job->list = job->homes = job->opened = false;
}
