/* SPDX-License-Identifier: BSD-3-Clause */
/* One round of blocking calls to xenstored: what domains.c hands to its worker. Private to domains/. */
#ifndef TW_DOMAINS_JOB_H
#define TW_DOMAINS_JOB_H

#include "domains/guest.h"
#include "domains/told.h"

#define TW_JOB_GUESTS 64
#define TW_JOB_WRITES 128

struct tw_job {
	/* What to do; the store is opened first, when there is none. */
	bool list;                      /* of all guests */
	bool homes;                     /* of all domains */
	unsigned domids[TW_JOB_GUESTS]; /* guests to read */
	size_t nguests;
	struct tw_told_batch *batch; /* NULL: nothing to write */
	/* What stays from one round to the next. */
	struct tw_store *store;
	bool need_socket; /* the last one was xenstored's socket: it will be again */
	unsigned self;
	/* What came of it. */
	struct tw_error *err; /* there is no connection (any more); whoever uses its events closes it */
	bool opened;          /* there is one since this round */
	unsigned *listed;
	size_t nlisted;
	unsigned *domains; /* that exist; NULL: it cannot be told */
	size_t ndomains;
	struct tw_guest *guests[TW_JOB_GUESTS]; /* for each of domids, NULL: none */
	bool read[TW_JOB_GUESTS];               /* false: it could not be read, and why is in the log */
};

/* Does it. Blocking. */
void tw_job_run(struct tw_job *job);
/* Frees what came of it, but for what was taken out, and asks for nothing. */
void tw_job_reset(struct tw_job *job);

#endif
