/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The guests that this domain serves disks to, followed through xenstore, and what is said there of their disks.
 * Connects, watches, reads and writes in a thread of its own (worker.h), and connects again when xenstored is started
 * again. All callbacks come from the loop.
 */
#ifndef TW_DOMAINS_DOMAINS_H
#define TW_DOMAINS_DOMAINS_H

#include "domains/guest.h"
#include "domains/told.h"
#include "event/json.h"
#include <uv.h>

struct tw_domains_ops {
	/* A guest as it is now; NULL: it has no disks of ours, or is gone. again: it was read after xenstored has come
	 * back, which may know less than there is. */
	void (*guest)(void *arg, unsigned domid, const struct tw_guest *guest, bool again);
	/* Every guest has been told of, for the first time or after xenstored has come back. */
	void (*complete)(void *arg);
	/* There is no xenstored, at the start, or it has gone. text says so. */
	void (*lost)(void *arg, const char *text);
};

struct tw_domains;

/* ops must outlive it. */
struct tw_error *tw_domains_create(uv_loop_t *loop, const struct tw_domains_ops *ops, void *arg,
	struct tw_domains **out) TW_MUST_CHECK;
void tw_domains_start(struct tw_domains *domains);
/* Says no more callbacks but stopped(arg), which comes when what was said in xenstore is taken back, or it does not
 * answer. */
void tw_domains_stop(struct tw_domains *domains, void (*stopped)(void *arg), void *arg);
/* After that, or when it was not started. The memory goes when the loop has run its close callbacks. NULL is fine. */
void tw_domains_destroy(struct tw_domains *domains);

/* Says something of a disk, or of the service; see told.h. A failure is logged. */
void tw_domains_tell_disk(struct tw_domains *domains, const struct tw_told_disk *disk);
void tw_domains_tell_service(struct tw_domains *domains, const struct tw_told_service *service);
/* A disk has gone: nothing is said of it any more. */
void tw_domains_forget_disk(struct tw_domains *domains, const struct tw_xs_ids *ids);

/* Writes the status of the connection, as an object of this key. */
void tw_domains_status(const struct tw_domains *domains, const char *key, struct tw_json *json);

#endif
